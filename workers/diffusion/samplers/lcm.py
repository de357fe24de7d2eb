"""Sampling of latent consistency models: Luo et al. 2023, arXiv 2310.04378.

The rule this module protects: the timesteps are a choice out of those that the model was distilled
on (``original_inference_steps``), so no more steps than that can be asked for.
"""

from __future__ import annotations

import math

import numpy as np

from daemon.errors import JobError, ModelError
from workers.diffusion.samplers.levels import CLEAN, Level, Move, clean_weights
from workers.diffusion.samplers.sampler import Stage, Trajectory
from workers.diffusion.schedule import ClassDefaults, SchedulerConfig, alphas_cumprod

DEFAULTS = ClassDefaults(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

_SIGMA_DATA = 0.5


def lcm(config: SchedulerConfig, steps: int, skipped: int) -> Trajectory:
    """Return the stages after the first ``skipped``, as diffusers' ``LCMScheduler``.

    Raises:
        JobError: more steps than the model was distilled on.
        ModelError: the file's ``original_inference_steps`` cannot be, or see ``clean_weights``.
    """
    alphas = alphas_cumprod(config, DEFAULTS)
    timesteps = _timesteps(config, steps)[skipped:]
    levels = [Level.from_alpha(float(alphas[time])) for time in timesteps]
    stages = [
        _stage(config, time, level, target)
        for time, level, target in zip(timesteps, levels, [*levels, CLEAN][1:], strict=True)
    ]
    return Trajectory(
        stages=tuple(stages), clip=config.clip_sample_range if config.clip_sample else None
    )


def _timesteps(config: SchedulerConfig, steps: int) -> list[int]:
    """Return evenly spaced ones of the timesteps of the distillation, falling."""
    original = config.original_inference_steps
    if original > config.num_train_timesteps:
        raise ModelError(
            f"scheduler_config.json has original_inference_steps = {original}, more than its"
            f" num_train_timesteps = {config.num_train_timesteps}",
            remedy="correct the file; most models were distilled on 50",
        )
    if steps > original:
        raise JobError(
            f"{steps} steps are too many: the sampler lcm chooses among {original}",
            field="steps",
            remedy=f"use at most {original} steps (4 to 8 are usual), or another sampler",
        )
    stride = config.num_train_timesteps // original
    chosen = np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)
    return [(original - int(place)) * stride - 1 for place in chosen]


def _stage(config: SchedulerConfig, timestep: int, level: Level, target: Level) -> Stage:
    """Return the stage to ``target``; the last one, to the clean end, adds no noise again.

    The boundary conditions are equation 9 with diffusers' ``timestep_scaling``.
    """
    time = timestep * config.timestep_scaling
    size = math.hypot(time, _SIGMA_DATA)
    return Stage(
        timestep=float(timestep),
        level=level,
        clean=clean_weights(level, config.prediction_type),
        move=Move(
            sample=target.signal * (_SIGMA_DATA / size) ** 2,
            clean=target.signal * time / size,
            noise=target.noise,
        ),
    )
