"""The preview of a picture that is still noise: latents as colours, without the decoder.

The rule this module protects: a preview costs next to nothing and disturbs nothing. Each latent
becomes one colour by a linear map, and the file is replaced whole but not synced, for it is worth
nothing once the job has ended. Imports no MLX.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.diffusion.pictures import Floats, Pixels, Size, to_pixels
from workers.failures import disk_errors

PREVIEW = "preview.png"

_SHOWN = 9
_ENLARGED = 8
_LIMIT = 1024
_SIDE = 16
_SAMPLES = 4

Decode = Callable[[NDArray[np.float32]], Floats]


@dataclass(frozen=True, kw_only=True)
class LatentRgb:
    """A linear map from a latent's channels, as the sampler has them, to RGB in [-1, 1].

    ``matrix`` is (channels, 3), ``bias`` is (3,).
    """

    matrix: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __call__(self, latents: Floats) -> NDArray[np.float32]:
        """Return (..., channels) latents as (..., 3) colours."""
        return np.asarray(latents, dtype=np.float32) @ self.matrix + self.bias


# Found by keturn for Stable Diffusion 1.4, whose VAE 1.x and 2.x share: "Decoding latents to RGB
# without upscaling", discuss.huggingface.co/t/23204.
_SD = LatentRgb(
    matrix=np.array(
        [
            [0.298, 0.207, 0.208],
            [0.187, 0.286, 0.173],
            [-0.158, 0.189, 0.264],
            [-0.184, -0.271, -0.473],
        ],
        dtype=np.float32,
    ),
    bias=np.zeros(3, dtype=np.float32),
)
# Found by T. A. Vass for SDXL, given for 0 to 255: latents_to_rgb in diffusers' documentation,
# "Pipeline callbacks".
_SDXL = LatentRgb(
    matrix=np.array([[60, 60, 60], [-60, -5, 10], [25, 15, -5], [-70, -50, -35]], dtype=np.float32)
    / np.float32(127.5),
    bias=np.array([150, 140, 130], dtype=np.float32) / np.float32(127.5) - np.float32(1),
)
# A VAE is known by the factor of its latents, which fine-tuned decoders keep.
_KNOWN = {(0.18215, 4): _SD, (0.13025, 4): _SDXL}


def known_latent_rgb(scaling_factor: float, channels: int) -> LatentRgb | None:
    """Return the published map of Stable Diffusion's VAEs, or None for any other VAE."""
    return _KNOWN.get((scaling_factor, channels))


def fit_latent_rgb(decode: Decode, channels: int) -> LatentRgb:
    """Fit the map of a VAE by least squares between latents and the pixels it decodes them to.

    ``decode`` takes (N, h, w, channels) latents as the sampler has them and returns the pictures,
    (N, f h, f w, 3) in [-1, 1]; it is called once, for four pictures of 16 x 16 latents. These are
    patches of random colours with some noise over them, of unit variance like real latents.
    """
    latents = _samples(channels)
    colours = _shrunk(np.asarray(decode(latents), dtype=np.float32), _SIDE)
    points = latents.reshape(-1, channels)
    known = np.concatenate([points, np.ones_like(points[:, :1])], axis=1)
    found = np.linalg.lstsq(known, colours.reshape(-1, 3), rcond=None)[0].astype(np.float32)
    return LatentRgb(matrix=found[:-1], bias=found[-1])


def preview_pixels(latents: Floats, to_rgb: LatentRgb) -> Pixels:
    """Return (N, h, w, channels) latents as one picture, up to nine of them side by side.

    Each latent becomes a square of eight pixels, smoothed, as far as 1024 pixels allow. Values that
    are not finite are shown as gray.
    """
    colours = np.nan_to_num(to_rgb(latents[:_SHOWN]), nan=0.0, posinf=1.0, neginf=-1.0)
    small = Image.fromarray(_tiled(to_pixels(colours)))
    enlarged = min(_ENLARGED, _LIMIT / max(small.size))
    size = Size(*(max(1, round(side * enlarged)) for side in small.size))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))


def write_preview(folder: Path, pixels: Pixels) -> Path:
    """Replace ``preview.png`` in ``folder``, so that a reader sees the old or the new one whole.

    Raises:
        DiskFullError: the disk is full; the job could not save its pictures either.
    """
    path = folder / PREVIEW
    temporary = path.with_name(f".{PREVIEW}.part")
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", compress_level=1)
    try:
        with disk_errors(path):
            temporary.write_bytes(content.getvalue())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def _samples(channels: int) -> NDArray[np.float32]:
    """Return the latents that a fit decodes, the same for every model."""
    random = np.random.Generator(np.random.PCG64(0))
    patches = random.standard_normal((_SAMPLES, 4, 4, channels))
    noise = random.standard_normal((_SAMPLES, _SIDE, _SIDE, channels))
    smooth = patches.repeat(_SIDE // 4, axis=1).repeat(_SIDE // 4, axis=2)
    return (0.95 * smooth + 0.3 * noise).astype(np.float32)


def _shrunk(pictures: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return the mean colour that is seen in each of ``side`` by ``side`` squares."""
    count, height, width, _ = pictures.shape
    squares = np.clip(np.nan_to_num(pictures), -1, 1).reshape(
        count, side, height // side, side, width // side, 3
    )
    result: NDArray[Any] = squares.mean(axis=(2, 4))
    return result


def _tiled(pictures: Pixels) -> Pixels:
    """Return (N, h, w, 3) pictures side by side in the squarest grid, empty places black."""
    count, height, width, _ = pictures.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
    grid[:count] = pictures
    rowed = grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return rowed.reshape(rows * height, columns * width, 3)
