"""Which image models are mflux's, and what they understand of a job's options.

The rule this module protects: whoever has no such model never notices mflux. Detection reads JSON
and asks whether the packages could be imported; nothing of them is. Imports no MLX.

Read from mflux 0.24.0: classes, names of models (``ModelConfig``), steps (``mflux.cli.defaults``),
guidance (defaults, and the examples of its READMEs), and what ``generate_image`` does with each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daemon.errors import JobError, ModelError
from daemon.specs import DiffuseSpec

# Beside mflux itself, greenlet: see handover.py.
PACKAGES = ("mflux", "greenlet")

# mflux rounds other sizes down without a word.
SIDE_STEP = 16
SIDE = 1024

_OWN_SAMPLER = "euler"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model as mflux knows it.

    ``title`` is for people, ``key`` mflux's name. ``network`` and ``lora_mapping`` are classes of
    mflux as ``module:name``. ``steps`` is what the model is made for. ``unguided`` is the guidance
    that means none, or None where guidance is built in and cannot be chosen; ``cfg`` the usual one.
    """

    title: str
    key: str
    network: str
    lora_mapping: str
    steps: int
    unguided: float | None = None
    cfg: float | None = None
    negative: bool = False


_FLUX1 = Variant(
    title="FLUX.1-schnell",
    key="schnell",
    network="mflux.models.flux.variants.txt2img.flux:Flux1",
    lora_mapping="mflux.models.flux.weights.flux_lora_mapping:FluxLoRAMapping",
    steps=4,
)
_FLUX1_DEV = replace(_FLUX1, title="FLUX.1-dev", key="dev", steps=25, unguided=1.0, cfg=3.5)
_FLUX2 = Variant(
    title="FLUX.2-klein",
    key="flux2-klein-4b",
    network="mflux.models.flux2.variants.txt2img.flux2_klein:Flux2Klein",
    lora_mapping="mflux.models.flux2.weights.flux2_lora_mapping:Flux2LoRAMapping",
    steps=4,
)
_FLUX2_BASE = replace(_FLUX2, title="FLUX.2-klein-base", steps=50, unguided=1.0, cfg=1.5)
_Z_TURBO = Variant(
    title="Z-Image-Turbo",
    key="z-image-turbo",
    network="mflux.models.z_image.variants.z_image:ZImage",
    lora_mapping="mflux.models.z_image.weights.z_image_lora_mapping:ZImageLoRAMapping",
    steps=9,
)
_Z_IMAGE = replace(
    _Z_TURBO, title="Z-Image", key="z-image", steps=50, unguided=0.0, cfg=4.0, negative=True
)
_QWEN = Variant(
    title="Qwen-Image",
    key="qwen-image",
    network="mflux.models.qwen.variants.txt2img.qwen_image:QwenImage",
    lora_mapping="mflux.models.qwen.weights.qwen_lora_mapping:QwenLoRAMapping",
    steps=20,
    unguided=1.0,
    cfg=3.5,
    negative=True,
)


def detect(folder: Path) -> Variant | None:
    """Return what mflux calls the model in ``folder``; None where it is not one of mflux's.

    Raises:
        ModelError: it is one, and a file that tells which is missing or damaged.
    """
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
        choose = _PIPELINES.get(index["_class_name"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return None if choose is None else choose(folder, index)


def require(folder: Path, name: str) -> Variant:
    """Return the variant of the model called ``name``, which is to be run now.

    Raises:
        ModelError: it is none of mflux's, or mflux is not installed: says how to install it.
    """
    variant = detect(folder)
    if variant is None:
        raise ModelError(f"{name} is no model that mflux runs")
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise ModelError(
            f"{name} is a {variant.title} model, which needs the optional extra studioq[flux]; "
            f"not installed: {', '.join(missing)}",
            remedy=install_remedy(sys.platform),
        )
    return variant


def install_remedy(platform: str) -> str:
    """Say how the extra is installed on ``platform`` (as ``sys.platform`` names it)."""
    if platform == "darwin":
        return "pip install 'studioq[flux]' where studioq is installed, then restart the worker"
    return "the extra is for macOS only; here, use a Stable Diffusion model"


def refuse_unusable(spec: DiffuseSpec, variant: Variant) -> None:
    """Refuse the first option that mflux would ignore or cannot follow.

    Raises:
        JobError: names the option, its value and what is possible.
    """
    for refused, reason, remedy in _refusals(spec, variant):
        if refused:
            raise JobError(f"{variant.title} models {reason}", remedy=remedy)


def _refusals(spec: DiffuseSpec, variant: Variant) -> Iterator[tuple[bool, str, str]]:
    """Yield what may be wrong: whether it is, why, and the way out."""
    own = (DiffuseSpec.model_fields["sampler"].default, _OWN_SAMPLER)
    yield (
        spec.mask is not None,
        "take no mask",
        "leave out --mask, or use a Stable Diffusion model",
    )
    yield (
        spec.sampler not in own,
        f"have a sampler of their own and cannot use {spec.sampler}",
        f"leave out --sampler, or say {_OWN_SAMPLER}, which it is",
    )
    yield (
        spec.prediction_type is not None,
        f"predict a velocity; {spec.prediction_type} is not theirs",
        "leave out --prediction-type",
    )
    yield (
        bool(spec.negative_prompt) and not variant.negative,
        "know no negative prompt",
        "leave out --negative-prompt, and say in the prompt what is wanted",
    )
    for name, side in (("width", spec.width), ("height", spec.height)):
        rounded = max(SIDE_STEP, (side or 0) // SIDE_STEP * SIDE_STEP)
        yield (
            side is not None and side % SIDE_STEP != 0,
            f"need multiples of {SIDE_STEP}: {name} = {side} is none",
            f"use --{name} {rounded}",
        )


def notes(spec: DiffuseSpec, variant: Variant) -> list[str]:
    """Return lines for the log on options that are allowed but unlikely to be meant."""
    said = []
    if spec.steps != variant.steps:
        said.append(
            f"{variant.title} is made for {variant.steps} steps; this job does {spec.steps}"
        )
    if variant.unguided is None:
        said.append(f"{variant.title} has its guidance built in; cfg {spec.cfg:g} is not used")
    elif spec.cfg != variant.cfg:
        said.append(f"{variant.title} is usually run with cfg {variant.cfg:g}, not {spec.cfg:g}")
    if spec.batch_size not in ("auto", 1) and spec.n_images > 1:
        said.append("mflux makes pictures one at a time; the batch size is not used")
    return said


def arguments(spec: DiffuseSpec, variant: Variant) -> dict[str, Any]:
    """Return the arguments of mflux's ``generate_image`` that are the same for all pictures.

    Guidance: see docs/mflux.md. mflux's ``image_strength`` is the share of the image that is kept
    (it starts at step ``steps * image_strength``), studioq's strength the share that is made anew.
    """
    chosen: dict[str, Any] = {"prompt": spec.prompt, "num_inference_steps": spec.steps}
    if variant.unguided is not None:
        chosen["guidance"] = spec.cfg if spec.cfg > 0 else variant.unguided
    if spec.negative_prompt and variant.negative:
        chosen["negative_prompt"] = spec.negative_prompt
    if spec.image is not None:
        chosen["image_strength"] = round(1 - spec.strength, 9)
    return chosen


def recorded(spec: DiffuseSpec) -> dict[str, Any]:
    """Return the spec as a picture's metadata tell it: with the sampler that was really used."""
    return spec.model_dump(mode="json") | {"sampler": _OWN_SAMPLER}


def _flux1(folder: Path, _index: Mapping[str, Any]) -> Variant:
    """Only dev and its descendants take a guidance (diffusers' default for the key is false)."""
    guided = _config(folder, "transformer/config.json").get("guidance_embeds", False)
    return _FLUX1_DEV if guided else _FLUX1


def _flux2(folder: Path, index: Mapping[str, Any]) -> Variant:
    """Two sizes, of 5 and 8 double blocks; ``is_distilled`` is diffusers' key, by default false."""
    layers = _config(folder, "transformer/config.json").get("num_layers")
    sizes = {5: "4b", 8: "9b"}
    if layers not in sizes:
        raise ModelError(
            f"{folder.name} is a FLUX.2-klein model with num_layers = {layers}; mflux knows 5 and 8"
        )
    distilled = bool(index.get("is_distilled", False))
    base, infix = (_FLUX2, "") if distilled else (_FLUX2_BASE, "base-")
    return replace(base, key=f"flux2-klein-{infix}{sizes[layers]}")


def _z_image(folder: Path, _index: Mapping[str, Any]) -> Variant:
    """Turbo and base differ in nothing but their weights and the schedule's shift, 3 and 6."""
    shift = _config(folder, "scheduler/scheduler_config.json").get("shift")
    return _Z_TURBO if shift == 3 else _Z_IMAGE


_PIPELINES: dict[str, Callable[[Path, Mapping[str, Any]], Variant]] = {
    "FluxPipeline": _flux1,
    "Flux2KleinPipeline": _flux2,
    "ZImagePipeline": _z_image,
    "QwenImagePipeline": lambda _folder, _index: _QWEN,
}


def _config(folder: Path, name: str) -> dict[str, Any]:
    """Return a configuration that tells variants apart; to guess would make wrong pictures."""
    try:
        data = json.loads((folder / name).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"it is no JSON ({error})"
        raise ModelError(
            f"{folder.name}/{name} cannot be read: {reason}", remedy="download the model again"
        ) from None
    if not isinstance(data, dict):
        raise ModelError(f"{folder.name}/{name} is not an object", remedy="download it again")
    return data
