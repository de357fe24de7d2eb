"""The preview of a picture that is still noise: what the latents would show now, cheaply.

The rule this module protects: a preview costs little and disturbs nothing. The latents of Stable
Diffusion's own VAEs become colours by a published linear map. No such map is right for any VAE (one
fitted to a small VAE's random latents or to one of its pictures was far off for the next picture),
so of any other model the first picture is decoded, coarsely if it is large. The file is replaced
whole but not synced, for it is worth nothing once the job has ended. Imports no MLX.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from daemon.size import Size
from workers.diffusion.pictures import Floats, Pixels, to_pixels
from workers.failures import disk_errors

PREVIEW = "preview.png"

Decode = Callable[[NDArray[np.float32]], Floats]
Previewer = Callable[[Floats], Pixels]

_SHOWN = 9
_ENLARGED = 8
_LIMIT = 1024
_DECODED_SIDE = 32
_GRAY = 228


@dataclass(frozen=True, kw_only=True)
class LatentRgb:
    """A linear map from a latent's channels, as the sampler has them, to RGB in [-1, 1].

    ``matrix`` is (channels, 3), ``bias`` is (3,).
    """

    matrix: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __call__(self, latents: Floats) -> NDArray[np.float32]:
        """Return (..., channels) latents as (..., 3) colours."""
        with np.errstate(all="ignore"):
            return np.asarray(latents, dtype=np.float32) @ self.matrix + self.bias


# Found by keturn for Stable Diffusion 1.4, whose VAE 1.x and 2.x share: "Decoding latents to RGB
# without upscaling", discuss.huggingface.co/t/23204.
SD = LatentRgb(
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
SDXL = LatentRgb(
    matrix=np.array([[60, 60, 60], [-60, -5, 10], [25, 15, -5], [-70, -50, -35]], dtype=np.float32)
    / np.float32(127.5),
    bias=np.array([150, 140, 130], dtype=np.float32) / np.float32(127.5) - np.float32(1),
)
# A VAE is known by the factor and channels of its latents, which fine-tuned decoders keep.
_KNOWN = {(0.18215, 4): SD, (0.13025, 4): SDXL}


def previewer(scaling_factor: float, channels: int, decode: Decode) -> Previewer:
    """Return the function from (N, h, w, channels) latents to one (height, width, 3) picture.

    ``scaling_factor`` and ``channels`` are those of the VAE's configuration. ``decode`` takes
    (1, h, w, channels) latents as the sampler has them and returns (1, f h, f w, 3) in [-1, 1]; it
    is asked for models without a published map, once for each preview.
    """
    to_rgb = _KNOWN.get((scaling_factor, channels))
    return partial(by_map, to_rgb) if to_rgb is not None else partial(by_decoding, decode)


def by_map(to_rgb: LatentRgb, latents: Floats) -> Pixels:
    """Return the batch as one picture, up to nine side by side, eight pixels for each latent."""
    return _enlarged(_tiled(_shown(to_rgb(latents[:_SHOWN]))), _ENLARGED)


def by_decoding(decode: Decode, latents: Floats) -> Pixels:
    """Return the first picture, decoded from at most 32 x 32 of its latents."""
    step = -(-max(latents.shape[1:3]) // _DECODED_SIDE)
    few = np.ascontiguousarray(latents[:1, ::step, ::step], dtype=np.float32)
    return _enlarged(_shown(decode(few))[0], step)


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


def _shown(colours: Floats) -> Pixels:
    """Return colours as pixels; what is not finite becomes gray, black or white."""
    return to_pixels(np.nan_to_num(colours, nan=0.0, posinf=1.0, neginf=-1.0))


def _enlarged(pixels: Pixels, factor: int) -> Pixels:
    """Enlarge smoothly, as far as ``_LIMIT`` allows."""
    small = Image.fromarray(pixels)
    bounded = min(factor, _LIMIT / max(small.size))
    size = Size(*(max(1, round(side * bounded)) for side in small.size))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))


def _tiled(pictures: Pixels) -> Pixels:
    """Return (N, h, w, 3) pictures in the squarest grid, a line of gray between them."""
    count, height, width, _ = pictures.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + 1, width + 1, 3), _GRAY, dtype=np.uint8)
    cells[:count, :-1, :-1] = pictures
    grid = cells.reshape(rows, columns, height + 1, width + 1, 3).swapaxes(1, 2)
    return grid.reshape(rows * (height + 1), columns * (width + 1), 3)[:-1, :-1]
