"""Pictures that a user gives: read with care, whatever the file turns out to be.

The rule this module protects: a bad file is one clear message. Formats and pixels are
bounded as at the submission, before anything is decoded, and whatever a decoder raises becomes a
``JobError`` that names the file as its owner does. Here the whole picture is decoded, which the
submission leaves out for large ones.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from daemon.errors import JobError
from daemon.pictures import FORMATS
from daemon.size import Size
from daemon.specs import MAX_PIXELS

_ORIENTATION = 0x0112  # the EXIF tag; its values 2 to 8 say how to turn a picture upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders were seen to raise on damaged files; they promise no set of errors.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def load_picture(path: Path, name: str) -> Image.Image:
    """Return a picture, decoded and upright, with 8 bits to a channel, in whatever mode it has.

    It is turned as its EXIF orientation says; of an animation the first frame counts; gray of 16
    bits is scaled to 8.

    Raises:
        JobError: the file is empty, not a picture, damaged or too large.
    """
    with _refusals(path, name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(name)
            image.load()
            turn = _turn(image)
            pixels = _eight_bits(image, name)
            return pixels.copy() if turn is None else pixels.transpose(turn)


def picture_values(image: Image.Image, size: Size) -> NDArray[np.float32]:
    """Return a picture in ``size`` as (height, width, 3) float32 in [-1, 1].

    It is resized with Lanczos, as diffusers' VaeImageProcessor does; transparent parts are laid
    over white (their hidden colours would otherwise appear); grayscale, palettes and CMYK become
    RGB, colour profiles are not applied.
    """
    values = np.asarray(resized(image, size, "white"), dtype=np.float32) / np.float32(255)
    return np.float32(2) * values - np.float32(1)


def resized(image: Image.Image, size: Size, background: str) -> Image.Image:
    """Return the picture in RGB over ``background``, resized with Lanczos."""
    return _flattened(image, background).resize(size, Image.Resampling.LANCZOS)


def _flattened(image: Image.Image, background: str) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, background)
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale gray of 16 bits (which Pillow's conversions clip); refuse what has no known range."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 0xFFFF:
        raise JobError(
            f"{name} has numbers of more than 16 bits, and nothing says which of them is white",
            remedy="save the picture with 8 or 16 bits to a channel",
        )
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what turns a picture upright by its EXIF data; damaged EXIF data say nothing."""
    try:
        return _UPRIGHT.get(int(image.getexif().get(_ORIENTATION, 1)))
    except _DAMAGED:
        return None


@contextmanager
def _refusals(path: Path, name: str) -> Iterator[None]:
    """Turn whatever reading raises into one message about ``name``."""
    try:
        yield
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except UnidentifiedImageError:
        raise _not_a_picture(path, name) from None
    except _DAMAGED as error:
        raise _damaged(error, name) from None


def _too_large(name: str) -> JobError:
    return JobError(
        f"{name} has more than {MAX_PIXELS / 1e6:.0f} megapixels", remedy="make the picture smaller"
    )


def _not_a_picture(path: Path, name: str) -> JobError:
    if path.stat().st_size == 0:
        return JobError(f"{name} is empty (0 bytes)", remedy="give a picture")
    known = ", ".join(FORMATS)
    return JobError(
        f"{name} is not a picture of a known format ({known}), or its beginning is damaged",
        remedy="save it as PNG or JPEG",
    )


def _damaged(error: Exception, name: str) -> JobError:
    if isinstance(error, OSError) and error.errno is not None:
        return JobError(f"{name} cannot be read: {error.strerror}", remedy="submit the job again")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return JobError(
        f"{name} is damaged or cut short: {reason}", remedy="save the picture again as PNG or JPEG"
    )
