"""Euler's method and its ancestral variant: Karras et al. 2022, arXiv 2206.00364, algorithm 1.

The rule this module protects: samples are clean + sigma * noise, of a variance far above 1, and the
network never sees them so; ``Stage.scale`` takes them back to the variance it was trained with.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from workers.diffusion.samplers.levels import Level, clean_weights, transfer
from workers.diffusion.samplers.sampler import Stage, Trajectory
from workers.diffusion.samplers.timesteps import Float64s, spaced
from workers.diffusion.schedule import (
    ClassDefaults,
    Float32s,
    SchedulerConfig,
    Spacing,
    alphas_cumprod,
    noise_ratios,
    with_smallest_signal,
)

DEFAULTS = ClassDefaults(timestep_spacing="linspace")


def euler(config: SchedulerConfig, steps: int, skipped: int) -> Trajectory:
    """Return the stages after the first ``skipped``, as diffusers' ``EulerDiscreteScheduler``."""
    table = _table(config)
    spacing = config.timestep_spacing or DEFAULTS.timestep_spacing
    timesteps = _timesteps(config, spacing, steps)
    last = float(table[0]) if config.final_sigmas_type == "sigma_min" else 0.0
    sigmas = np.append(_sigmas(config, table, timesteps), last).astype(np.float32)
    stages = [
        _stage(config, float(timesteps[at]), float(sigmas[at]), float(sigmas[at + 1]))
        for at in range(skipped, len(timesteps))
    ]
    return Trajectory(stages=tuple(stages), initial=_initial(sigmas, spacing))


def euler_ancestral(config: SchedulerConfig, steps: int, skipped: int) -> Trajectory:
    """Return the stages after the first ``skipped``.

    As diffusers' ``EulerAncestralDiscreteScheduler``, which always ends at zero noise and
    interpolates sigmas linearly; it refuses prediction_type "sample", which works here.
    """
    spacing = config.timestep_spacing or DEFAULTS.timestep_spacing
    timesteps = _timesteps(config, spacing, steps)
    sigmas = np.append(_interpolated(_table(config), timesteps), 0.0).astype(np.float32)
    stages = [
        _ancestral_stage(config, float(timesteps[at]), float(sigmas[at]), float(sigmas[at + 1]))
        for at in range(skipped, len(timesteps))
    ]
    return Trajectory(stages=tuple(stages), initial=_initial(sigmas, spacing))


def _table(config: SchedulerConfig) -> Float32s:
    """Return sigma at each training timestep, shape (timesteps,)."""
    return noise_ratios(with_smallest_signal(config, alphas_cumprod(config, DEFAULTS)))


def _timesteps(config: SchedulerConfig, spacing: Spacing, steps: int) -> Float64s:
    """Return the timesteps in float32, fractions and all, as the network gets them."""
    return spaced(config, spacing, steps).astype(np.float32).astype(np.float64)


def _interpolated(table: Float32s, timesteps: Float64s) -> Float64s:
    return np.interp(timesteps, np.arange(len(table)), table)


def _sigmas(config: SchedulerConfig, table: Float32s, timesteps: Float64s) -> Float64s:
    """Return a sigma for each timestep; "log_linear" has one more and ignores the timesteps."""
    if config.interpolation_type == "linear":
        return _interpolated(table, timesteps)
    ends = np.log(table[[-1, 0]].astype(np.float64))
    return np.exp(np.linspace(ends[0], ends[1], len(timesteps) + 1))


def _initial(sigmas: Float32s, spacing: Spacing) -> float:
    """Return the standard deviation of the first noise (diffusers' ``init_noise_sigma``)."""
    largest = float(sigmas.max())
    return math.sqrt(largest * largest + 1) if spacing == "leading" else largest


def _stage(config: SchedulerConfig, timestep: float, sigma: float, target: float) -> Stage:
    level = Level(1.0, sigma)
    return Stage(
        timestep=timestep,
        level=level,
        clean=clean_weights(level, config.prediction_type),
        move=transfer(level, Level(1.0, target), config.prediction_type),
        scale=level.scale,
    )


def _ancestral_stage(
    config: SchedulerConfig, timestep: float, sigma: float, target: float
) -> Stage:
    """Return a stage that goes below ``target``, to target² / sigma, and comes back up by noise."""
    stage = _stage(config, timestep, sigma, target * target / sigma)
    up = target * math.sqrt(max(0.0, 1 - (target / sigma) ** 2))
    return replace(stage, move=stage.move._replace(noise=up))
