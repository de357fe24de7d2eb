"""DPM-Solver++ of second order with multiple steps (DPM++ 2M), plain and with Karras' sigmas.

The rule this module protects: the settings that make it 2M (order 2, midpoint, first order at the
start and at the end) are its name's and not the file's; the file tells the noise alone.

Lu et al. 2022, arXiv 2211.01095, algorithm 2; diffusers' ``DPMSolverMultistepScheduler``.
"""

from __future__ import annotations

import math

import numpy as np

from workers.diffusion.samplers.levels import Level, Move, clean_weights
from workers.diffusion.samplers.sampler import Stage, Trajectory
from workers.diffusion.samplers.timesteps import Float64s, spaced
from workers.diffusion.schedule import (
    ClassDefaults,
    Float32s,
    SchedulerConfig,
    alphas_cumprod,
    noise_ratios,
    with_smallest_signal,
)

DEFAULTS = ClassDefaults(timestep_spacing="linspace")

# Below so many steps the last one is of first order in any case.
_FEW_STEPS = 15
_RHO = 7.0


def dpm_2m(config: SchedulerConfig, steps: int, skipped: int) -> Trajectory:
    """Return the stages after the first ``skipped``, with the file's spacing of timesteps."""
    table = _table(config)
    spacing = config.timestep_spacing or DEFAULTS.timestep_spacing
    timesteps = spaced(config, spacing, steps, top=_top(config, table), spare=1).round()
    sigmas = np.interp(timesteps, np.arange(len(table)), table)
    return _trajectory(config, table, timesteps, sigmas, skipped)


def dpm_2m_karras(config: SchedulerConfig, steps: int, skipped: int) -> Trajectory:
    """Return the stages after the first ``skipped``, with sigmas of Karras et al.

    arXiv 2206.00364, equation 5, rho 7, over the file's ``sigma_min`` and ``sigma_max`` or the ends
    of the schedule. The network gets the timestep that has the sigma, as a whole number.
    """
    table = _table(config)
    largest = (config.sigma_max or float(table[-1])) ** (1 / _RHO)
    smallest = (config.sigma_min or float(table[0])) ** (1 / _RHO)
    sigmas = (largest + np.linspace(0, 1, steps) * (smallest - largest)) ** _RHO
    timesteps = np.interp(np.log(sigmas), np.log(table), np.arange(len(table)))
    cosine = config.beta_schedule == "squaredcos_cap_v2"
    timesteps = np.trunc(timesteps) if cosine else timesteps.round()
    return _trajectory(config, table, timesteps, sigmas, skipped)


def _table(config: SchedulerConfig) -> Float32s:
    """Return sigma at each training timestep, shape (timesteps,)."""
    return noise_ratios(with_smallest_signal(config, alphas_cumprod(config, DEFAULTS)))


def _top(config: SchedulerConfig, table: Float32s) -> int:
    """Return how many training timesteps have a log signal-to-noise ratio that is not clipped."""
    return int((-np.log(table.astype(np.float64)) >= config.lambda_min_clipped).sum())


def _trajectory(
    config: SchedulerConfig, table: Float32s, timesteps: Float64s, sigmas: Float64s, skipped: int
) -> Trajectory:
    last = float(table[0]) if config.final_sigmas_type == "sigma_min" else 0.0
    rounded = np.append(sigmas, last).astype(np.float32)
    path = [float(sigma) for sigma in rounded[skipped:]]
    first_order_end = config.final_sigmas_type == "zero" or len(timesteps) < _FEW_STEPS
    stages = [
        _stage(config, float(time), path, at, first_order_end)
        for at, time in enumerate(timesteps[skipped:])
    ]
    return Trajectory(stages=tuple(stages))


def _stage(
    config: SchedulerConfig, timestep: float, path: list[float], at: int, first_order_end: bool
) -> Stage:
    """Return the stage from ``path[at]`` to the sigma after it."""
    level = Level.from_sigma(path[at])
    first_order = at == 0 or (first_order_end and at == len(path) - 2)
    before = None if first_order else path[at - 1]
    return Stage(
        timestep=timestep,
        level=level,
        clean=clean_weights(level, config.prediction_type),
        move=_move(before, path[at], path[at + 1]),
    )


def _move(before: float | None, sigma: float, target: float) -> Move:
    """Return the step from ``sigma`` to ``target``, of second order if a step came ``before``.

    With h the growth of the log signal-to-noise ratio, 1 - exp(-h) is 1 - target / sigma. Where
    the sigma did not change in the step before, nothing was learned of the slope.
    """
    source, goal = Level.from_sigma(sigma), Level.from_sigma(target)
    gain = goal.signal * (1 - target / sigma)
    slope = 0.0
    if before is not None and before != sigma:
        slope = gain * 0.5 * math.log(sigma / target) / math.log(before / sigma)
    return Move(sample=goal.noise / source.noise, clean=gain + slope, previous=-slope)
