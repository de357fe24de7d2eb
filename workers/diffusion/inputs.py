"""What a diffusion job brings along: a picture, a mask, LoRA files.

The rule this module protects: the size of everything is settled here, once, before anything is
computed, and each file is decoded once. A large picture's tiles are safe points.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from daemon.errors import JobError
from daemon.size import Size
from daemon.specs import SIDE_STEP, DiffuseSpec
from workers.diffusion import autoencode
from workers.diffusion.denoise import Repaint
from workers.diffusion.load import DiffusionModel
from workers.diffusion.lora import apply_loras
from workers.diffusion.masks import hidden, keep_picture, latent_mask, read_mask
from workers.diffusion.metadata import LoraFact, lora_hash
from workers.diffusion.originals import load_picture, picture_values
from workers.diffusion.pictures import Floats
from workers.events import SafePoint


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The job's picture, if it has one, in the size of the pictures to be made.

    ``latents``: (1, y, x, channels) to start from. ``repaint``: what a mask keeps. ``original``
    (height, width, 3) and ``mask`` (height, width, 1) are put back into the finished pictures.
    """

    size: Size
    latents: mx.array | None = None
    repaint: Repaint | None = None
    original: NDArray[np.float32] | None = None
    mask: NDArray[np.float32] | None = None

    def restore(self, painted: Floats) -> Floats:
        """Return finished pictures (n, height, width, 3) with what the mask keeps put back."""
        if self.original is None or self.mask is None:
            return painted
        return keep_picture(painted, self.original, self.mask)


def read_original(spec: DiffuseSpec, files: Mapping[str, Path]) -> Image.Image | None:
    """Return the job's picture, decoded and upright, if it has one.

    Raises:
        JobError: it cannot be read.
    """
    return load_picture(files["image"], spec.image.name) if spec.image is not None else None


def settle_size(spec: DiffuseSpec, original: Image.Image | None, model: DiffusionModel) -> Size:
    """Return the size that was asked for, else the picture's in steps of 8, else the model's.

    Raises:
        JobError: the model cannot make this size.
    """
    height, width = model.size
    if original is not None:
        width, height = (max(SIDE_STEP, side - side % SIDE_STEP) for side in original.size)
    size = Size(spec.width or width, spec.height or height)
    factor = model.vae.config.factor
    if size.width % factor or size.height % factor:
        raise JobError(
            f"{size} pixels do not suit {model.name}, whose VAE works in steps of {factor}",
            remedy=f"choose a --width and --height that are multiples of {factor}",
        )
    return size


def read_inputs(
    spec: DiffuseSpec,
    files: Mapping[str, Path],
    original: Image.Image | None,
    model: DiffusionModel,
    size: Size,
) -> Generator[SafePoint, None, Inputs]:
    """Encode the picture (``read_original``) and mask of a job whose pictures will be of ``size``.

    Raises:
        JobError: the mask cannot be read, or one of them does not suit the model.
    """
    if original is None:
        if model.repaints:
            raise JobError(
                f"{spec.model} only repaints pictures, and no image was given",
                remedy="give --image FILE and --mask FILE, or use another model",
            )
        return Inputs(size=size)
    picture = picture_values(original, size)
    latents = yield from autoencode.encoding(model.vae, mx.array(picture)[None])
    if spec.mask is None and not model.repaints:
        return Inputs(size=size, latents=latents)
    mask = _mask(spec, files, size, Size(*original.size))
    repaint = yield from _repaint(model, latents, picture, mask)
    return Inputs(
        size=size,
        latents=latents,
        repaint=repaint,
        original=picture,
        mask=mask,
    )


def _mask(
    spec: DiffuseSpec, files: Mapping[str, Path], size: Size, original: Size
) -> NDArray[np.float32]:
    if spec.mask is None:
        raise JobError(
            f"{spec.model} only repaints pictures, and no mask was given",
            remedy="give --mask FILE: white is painted anew",
        )
    return read_mask(files["mask"], spec.mask.name, size, picture=original)


def _repaint(
    model: DiffusionModel,
    latents: mx.array,
    picture: NDArray[np.float32],
    mask: NDArray[np.float32],
) -> Generator[SafePoint, None, Repaint]:
    small = mx.array(np.ascontiguousarray(latent_mask(mask, model.vae.config.factor)))[None]
    masked = None
    if model.repaints:
        seen = mx.array(hidden(picture, mask))[None]
        masked = yield from autoencode.encoding(model.vae, seen)
    return Repaint(clean=latents, mask=small, masked=masked)


def apply_lora_files(
    model: DiffusionModel, spec: DiffuseSpec, files: Mapping[str, Path]
) -> Iterator[str]:
    """Put the job's LoRA files into ``model``, which is the job's own; yield lines for its log."""
    if not spec.lora:
        return
    chosen = [
        (files[f"lora.{index}.file"], lora.file.name, lora.scale)
        for index, lora in enumerate(spec.lora)
    ]
    for report in apply_loras(model, chosen):
        yield report.line


def lora_facts(spec: DiffuseSpec, files: Mapping[str, Path]) -> tuple[LoraFact, ...]:
    """Return what a picture's metadata say of the LoRA files."""
    return tuple(
        LoraFact(name=lora.file.name, scale=lora.scale, hash=lora_hash(files[f"lora.{index}.file"]))
        for index, lora in enumerate(spec.lora)
    )
