"""Masks of inpainting: white is repainted, black stays.

The rule this module protects: what the mask keeps is kept exactly. A mask holds only 0 and 1, it
belongs to a picture of its own size, and what it keeps is chosen, not mixed. Imports no MLX.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.errors import JobError
from daemon.size import Size
from workers.diffusion.originals import load_picture, resized
from workers.diffusion.pictures import Floats

Mask = NDArray[np.float32]

_THRESHOLD = np.float32(0.5)


def read_mask(path: Path, name: str, size: Size, *, picture: Size) -> Mask:
    """Return a mask as (height, width, 1) float32: 1 is repainted, 0 stays.

    ``picture`` is the own size of the picture that it belongs to, ``size`` what both become.
    Transparent parts count as black, colours by their luminance. As in diffusers' mask processor,
    the mask is resized with Lanczos and a half or more counts as 1.

    Raises:
        JobError: as ``originals.load_picture``; or the mask's size is not the picture's.
    """
    image = load_picture(path, name)
    if image.size != picture:
        raise JobError(
            f"the mask {name} is {Size(*image.size)} pixels and its picture {picture}",
            remedy=f"make the mask {picture} pixels",
        )
    gray = np.asarray(resized(image, size, "black").convert("L"), dtype=np.float32)
    return (gray[..., None] / np.float32(255) >= _THRESHOLD).astype(np.float32)


def latent_mask(mask: Mask, factor: int = 8) -> Mask:
    """Return the mask at the latents' size, (height / factor, width / factor, 1).

    The nearest value, which is the first of each square, as in
    ``StableDiffusionInpaintPipeline.prepare_mask_latents`` of diffusers.
    """
    return mask[::factor, ::factor]


def hidden(picture: Floats, mask: Mask) -> Floats:
    """Return the picture with what is repainted in gray, which an inpainting UNet sees beside it.

    As ``StableDiffusionInpaintPipeline`` of diffusers makes its ``masked_image``.
    """
    return picture * (mask < _THRESHOLD)


def keep_picture(painted: Floats, original: Floats, mask: Mask) -> Floats:
    """Return the decoded pictures (N, H, W, 3) with the original's own values where the mask is 0.

    Decoding the kept latents alone would return the original only as the VAE renders it.
    """
    return np.where(mask > _THRESHOLD, painted, original)
