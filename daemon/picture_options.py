"""What the options of a diffusion mean together, and for its model.

The rule this module protects: options that leave nothing to do are refused, and one that would be
passed over in silence is told of, both while their owner is still at the terminal.
"""

from __future__ import annotations

import math
from pathlib import Path

from daemon.errors import ModelError, SpecRefusedError
from daemon.image_files import ImageFolder, is_mflux
from daemon.image_models import INDEX
from daemon.specs import MAX_STEPS, DiffuseSpec
from daemon.wording import counted

# Guidance of 0 or 1 is none: then nothing is guided away from.
_UNGUIDED = (0, 1)


def check_steps(spec: DiffuseSpec, model: Path) -> None:
    """Refuse a strength that leaves no step to do, as ``workers.diffusion.samplers`` counts them.

    mflux counts otherwise, and always leaves one.

    Raises:
        SpecRefusedError: names the strength, the steps, and what would do.
    """
    if spec.image is None or spec.strength == 0 or _steps_left(spec.steps, spec.strength):
        return
    if is_mflux(model):
        return
    raise SpecRefusedError(
        f"strength = {spec.strength:g} leaves none of {counted(spec.steps, 'step')}, which it "
        "multiplies",
        field="strength",
        remedy=f"give --strength {_enough(spec.steps):g} or more{_or_more_steps(spec)}; "
        "--strength 0 returns the image as the model sees it",
    )


def _steps_left(steps: int, strength: float) -> int:
    return int(steps * strength)


def _enough(steps: int) -> float:
    """Return the least strength in thousandths that leaves a step."""
    return next(part / 1000 for part in range(1, 1001) if _steps_left(steps, part / 1000))


def _or_more_steps(spec: DiffuseSpec) -> str:
    steps = math.ceil(1 / spec.strength)
    return f", or --steps {steps} or more" if steps <= MAX_STEPS else ""


def notes(spec: DiffuseSpec, model: Path | None) -> tuple[str, ...]:
    """Return a sentence for each option that is given and not used.

    ``model`` is None where it has yet to be fetched.
    """
    if not spec.negative_prompt:
        return ()
    if spec.cfg in _UNGUIDED:
        return (
            f"the negative prompt is not used: --cfg {spec.cfg:g} means no guidance, and without "
            "guidance there is nothing to guide away from",
        )
    if model is not None and _is_distilled(model):
        return (
            "the negative prompt is not used: this model has its guidance built in, and knows no "
            "negative side",
        )
    return ()


def _is_distilled(model: Path) -> bool:
    """Return whether the model's UNet was taught guidance, as LCM's are."""
    if not (model / INDEX).is_file() or is_mflux(model):
        return False
    try:
        config = ImageFolder(name=model.name, path=model).read("unet/config.json")
    except ModelError:
        return False
    return config.get("time_cond_proj_dim") is not None
