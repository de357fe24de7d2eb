"""What an image model is: its family, the size it was trained for, and what its UNet predicts.

The rule this module protects: it is told from the settings that the engine goes by, and never
guessed. What only the weights of a single-file checkpoint tell is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.errors import ModelError
from daemon.image_files import MFLUX_PIPELINES, ImageFolder, Json
from daemon.image_models import INDEX, checkpoint_file, tensor_names

SD1, SD2, SDXL = "SD 1.x", "SD 2.x", "SDXL"

_SD2_TEXT_WIDTH = 1024
_DEFAULT_LATENT_SIDE = 64  # diffusers' sample_size of a UNet that names none
_MOST_SIDE = 2**20  # pixels; a number of thousands of digits could not be answered

# How the text encoders' tensors of a single-file checkpoint begin.
_ENCODERS = {
    SDXL: ("conditioner.embedders.1.",),
    SD2: ("cond_stage_model.model.", "conditioner.embedders.0.model."),
    SD1: ("cond_stage_model.transformer.",),
}


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """``native_size``: width and height in pixels. None: not known before the model is loaded."""

    family: str | None = None
    native_size: tuple[int, int] | None = None
    prediction_type: str | None = None


def image_facts(path: Path) -> ImageFacts:
    """Return what is known of the image model at ``path``; nothing of one that cannot be read."""
    try:
        if (path / INDEX).is_file():
            return _of_folder(ImageFolder(name=path.name, path=path))
        file = checkpoint_file(path)
        return ImageFacts(family=_family_of(tensor_names(file)) if file is not None else None)
    except (ModelError, OSError, LookupError, TypeError, ValueError, OverflowError):
        return ImageFacts()


def _of_folder(folder: ImageFolder) -> ImageFacts:
    if folder.read(INDEX).get("_class_name") in MFLUX_PIPELINES:
        return ImageFacts()
    unet, vae = folder.read("unet/config.json"), folder.read("vae/config.json")
    schedule = folder.read("scheduler/scheduler_config.json")
    return ImageFacts(
        family=_family(unet),
        native_size=_native_size(unet, vae),
        prediction_type=str(schedule.get("prediction_type") or "epsilon"),
    )


def _family(unet: Json) -> str:
    if unet.get("addition_embed_type") == "text_time":
        return SDXL
    return SD2 if _first(unet.get("cross_attention_dim")) == _SD2_TEXT_WIDTH else SD1


def _native_size(unet: Json, vae: Json) -> tuple[int, int]:
    """Return width and height: the UNet's latents, each of which is several pixels of the VAE."""
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    side = unet.get("sample_size") or _DEFAULT_LATENT_SIDE
    height, width = side if isinstance(side, list) else (side, side)
    if not all(0 < int(pixels) * factor <= _MOST_SIDE for pixels in (width, height)):
        raise ValueError(f"no picture has a side of {factor} times {side!r:.80}")
    return int(width) * factor, int(height) * factor


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _family_of(names: Sequence[str]) -> str | None:
    for family, begins in _ENCODERS.items():
        if any(name.startswith(begins) for name in names):
            return family
    return None
