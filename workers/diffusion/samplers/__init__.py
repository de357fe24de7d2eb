"""Samplers: from noise to latents, each equal to diffusers' scheduler of that name.

The rule this package protects: the user's word chooses the sampler, the model's file the noise.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.errors import JobError
from workers.diffusion.samplers.ddim import ddim
from workers.diffusion.samplers.dpm import dpm_2m, dpm_2m_karras
from workers.diffusion.samplers.euler import euler, euler_ancestral
from workers.diffusion.samplers.lcm import lcm
from workers.diffusion.samplers.sampler import Sampler, Trajectory
from workers.diffusion.schedule import SchedulerConfig

__all__ = ["SAMPLERS", "Sampler", "make_sampler"]

_FAMILIES: dict[str, Callable[[SchedulerConfig, int, int], Trajectory]] = {
    "ddim": ddim,
    "euler": euler,
    "euler-a": euler_ancestral,
    "dpm++2m": dpm_2m,
    "dpm++2m-karras": dpm_2m_karras,
    "lcm": lcm,
}
SAMPLERS = tuple(_FAMILIES)


def make_sampler(
    name: str, config: SchedulerConfig, steps: int, *, strength: float = 1.0
) -> Sampler:
    """Return a sampler of ``steps`` steps, for one batch.

    With a ``strength`` below 1 (image to image) only the last ``int(steps * strength)`` of them are
    done, as diffusers' ``StableDiffusionImg2ImgPipeline.get_timesteps`` counts them. A strength of
    exactly 0 gives a sampler without steps, whose ``start`` returns the clean latents.

    Raises:
        JobError: an unknown name, a number of steps that the model's schedule does not have, a
            strength outside 0 to 1 or so small that no step is left. Names the field.
        ModelError: the model's schedule cannot be used with this sampler.
    """
    family = _FAMILIES.get(name)
    if family is None:
        raise JobError(
            f"there is no sampler {name!r}",
            field="sampler",
            remedy=f"use one of {', '.join(SAMPLERS)}",
        )
    most = config.num_train_timesteps
    _check_steps(steps, most)
    skipped = steps - _steps_to_do(steps, strength, most)
    return Sampler(family(config, steps, skipped), partial=skipped > 0)


def _check_steps(steps: int, most: int) -> None:
    if not 1 <= steps <= most:
        raise JobError(
            f"{steps} steps cannot be done: the model's schedule has 1 to {most}",
            field="steps",
            remedy="20 to 50 steps are usual",
        )


def _steps_to_do(steps: int, strength: float, most: int) -> int:
    if not 0 <= strength <= 1:
        raise JobError(
            f"a strength of {strength} is not between 0 and 1",
            field="strength",
            remedy="0 keeps the image, 1 replaces it; 0.7 is usual",
        )
    left = min(int(steps * strength), steps)
    if strength > 0 and left == 0:
        enough = next((count for count in range(steps, most + 1) if int(count * strength)), None)
        raise JobError(
            f"a strength of {strength} leaves none of {steps} steps",
            field="strength",
            remedy="use a greater strength" + (f", or {enough} steps" if enough else ""),
        )
    return left
