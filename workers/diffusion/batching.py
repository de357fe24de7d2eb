"""How many pictures are made at once: what memory allows and what the device gains from.

The rule this module protects: a batch is only a matter of speed. Every picture is the same in any
batch, but for the rounding of sums that another shape takes in another order, so one that would not
fit is made smaller, and only a picture that does not fit alone is refused.
"""

from __future__ import annotations

from typing import Literal

from daemon.errors import OutOfMemoryError
from workers.diffusion.load import DiffusionModel
from workers.diffusion.tiling import TILE
from workers.memory import device_kind, on_gpu

# Feature maps of the finest resolution that are alive at once, in the UNet for one row and in the
# VAE for one picture. Measured with get_peak_memory: UNet 76 to 480 in float16 on a CUDA device,
# where the host runs ahead of it, and 90 in float32 on the CPU, where convolutions are unrolled and
# a decoder holds 80. Metal is taken to be in between.
_UNET_MAPS = {"cuda": 480, "metal": 160, "cpu": 160}
_VAE_MAPS_GPU, _VAE_MAPS_CPU = 25, 80

# Latents in a batch after which more pictures hardly raise the speed, of a GPU and of a CPU.
_ENOUGH_GPU, _ENOUGH_CPU = 8 * 64 * 64, 64 * 64
_MOST = 64

# Share of the free memory that a batch may take; the estimate is no better.
_SHARE = 0.8


def picture_bytes(model: DiffusionModel, size: tuple[int, int], *, guided: bool) -> int:
    """Return the memory that one picture of ``size`` (height, width) takes while it is made."""
    factor = model.vae.config.factor
    latents = (size[0] // factor) * (size[1] // factor)
    rows = 2 if guided else 1
    unet = (
        rows
        * latents
        * model.unet.config.channels[0]
        * model.dtype.size
        * _UNET_MAPS[device_kind()]
    )
    at_once = min(latents, TILE * TILE) * factor * factor
    maps = _VAE_MAPS_GPU if on_gpu() else _VAE_MAPS_CPU
    vae = at_once * model.vae.config.channels[0] * model.vae.dtype.size * maps
    finished = 6 * 4 * size[0] * size[1] * 3
    return max(unet, vae) + finished


def choose_batch_size(
    model: DiffusionModel,
    size: tuple[int, int],
    *,
    guided: bool,
    wanted: int | Literal["auto"],
    images: int,
    free_bytes: int | None,
) -> int:
    """Return how many of ``images`` pictures are made at once, at most ``wanted``.

    Raises:
        OutOfMemoryError: not even one fits.
    """
    factor = model.vae.config.factor
    latents = (size[0] // factor) * (size[1] // factor)
    enough = (_ENOUGH_GPU if on_gpu() else _ENOUGH_CPU) // latents
    most = min(_MOST, max(1, enough)) if wanted == "auto" else wanted
    if free_bytes is not None:
        needed = picture_bytes(model, size, guided=guided)
        if needed > free_bytes:
            raise OutOfMemoryError(
                f"a picture of {size[1]}x{size[0]} pixels needs about {needed / 2**30:.1f} GiB "
                f"beside the model; this machine has {free_bytes / 2**30:.1f} GiB for it",
                remedy="choose a smaller --width and --height",
            )
        most = min(most, max(1, int(_SHARE * free_bytes / needed)))
    return min(most, images)
