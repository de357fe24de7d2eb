"""DDIM without noise of its own (eta 0): Song et al. 2021, arXiv 2010.02502.

The rule this module protects: each step lands where diffusers' ``DDIMScheduler`` lands, a fixed
stride down the training timesteps, whatever the spacing of the timesteps is.
"""

from __future__ import annotations

import numpy as np

from daemon.errors import JobError
from workers.diffusion.samplers.levels import CLEAN, Level, clean_weights, transfer
from workers.diffusion.samplers.sampler import Stage, Trajectory
from workers.diffusion.samplers.timesteps import spaced
from workers.diffusion.schedule import ClassDefaults, Float32s, SchedulerConfig, alphas_cumprod

DEFAULTS = ClassDefaults()


def ddim(config: SchedulerConfig, steps: int, skipped: int) -> Trajectory:
    """Return the stages after the first ``skipped``.

    Raises:
        JobError: a timestep lies outside the model's schedule.
        ModelError: see ``clean_weights``.
    """
    alphas = alphas_cumprod(config, DEFAULTS)
    spacing = config.timestep_spacing or DEFAULTS.timestep_spacing
    timesteps = spaced(config, spacing, steps).round().astype(np.int64)[skipped:]
    if timesteps.size and timesteps[0] >= len(alphas):
        raise JobError(
            f"{steps} steps reach timestep {timesteps[0]}, and the model's schedule has only"
            f" {len(alphas)} (its steps_offset is {config.steps_offset})",
            field="steps",
            remedy="use fewer steps, or the sampler euler",
        )
    stride = config.num_train_timesteps // steps
    return Trajectory(
        stages=tuple(_stage(config, alphas, int(time), stride) for time in timesteps),
        clip=config.clip_sample_range if config.clip_sample else None,
    )


def _stage(config: SchedulerConfig, alphas: Float32s, timestep: int, stride: int) -> Stage:
    level = Level.from_alpha(float(alphas[timestep]))
    prediction = config.prediction_type
    return Stage(
        timestep=float(timestep),
        level=level,
        clean=clean_weights(level, prediction),
        move=transfer(level, _target(config, alphas, timestep - stride), prediction),
    )


def _target(config: SchedulerConfig, alphas: Float32s, timestep: int) -> Level:
    """Return the level to go to; below the schedule it is the clean end, or its first entry."""
    if timestep < 0 and config.set_alpha_to_one:
        return CLEAN
    return Level.from_alpha(float(alphas[max(timestep, 0)]))
