"""At which training timesteps a sampler asks the network.

The rule this module protects: the timesteps are those of diffusers' ``set_timesteps`` for the
spacing that the model's file names, as many as the user asked for, and none outside the schedule.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from daemon.errors import JobError
from workers.diffusion.schedule import SchedulerConfig, Spacing

Float64s = npt.NDArray[np.float64]


def spaced(
    config: SchedulerConfig, spacing: Spacing, steps: int, *, top: int | None = None, spare: int = 0
) -> Float64s:
    """Return ``steps`` timesteps, falling, shape (steps,); "linspace" gives fractions.

    The three spacings are those of Lin et al. 2023, arXiv 2305.08891, table 2. ``top`` is the
    number of training timesteps to spread over, all of them by default. ``spare`` more are spread
    at the clean end and left out, as DPM-Solver does. Where diffusers' "trailing" has one more than
    asked for (61 steps of 1000, by a rounding of its range), the surplus is left out.

    Raises:
        JobError: "leading" has no whole stride for so many steps.
    """
    train = config.num_train_timesteps
    top = train if top is None else top
    count = steps + spare
    match spacing:
        case "linspace":
            return np.linspace(0, top - 1, count)[::-1][:steps]
        case "leading":
            stride = _stride(steps, top, spare)
            return (np.arange(count) * stride)[::-1][:steps].astype(
                np.float64
            ) + config.steps_offset
        case "trailing":
            return np.maximum(np.arange(top, 0, -train / steps).round()[:steps] - 1, 0)


def _stride(steps: int, top: int, spare: int) -> int:
    stride = top // (steps + spare)
    if stride < 1:
        raise JobError(
            f"{steps} steps do not fit: the model's schedule has {top} timesteps for this sampler",
            field="steps",
            remedy=f"use at most {max(1, top - spare)} steps",
        )
    return stride
