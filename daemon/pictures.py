"""Looks at an uploaded picture or mask before the job is queued.

The rule this module protects: what is no picture is refused while its owner is still at the
terminal, and costs the daemon neither memory nor time: headers are read, and only a small picture
is decoded, which finds one that is cut short. Pillow is imported when the first picture comes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from daemon.errors import SpecRefusedError
from daemon.size import Size
from daemon.specs import LONGEST_SIDE, MAX_PIXELS, SIDE_STEP, DiffuseSpec

if TYPE_CHECKING:
    from PIL import Image

# The formats that are read, as Pillow names them; others start foreign programs or are rarely
# tried. What each begins with tells a damaged picture from a file that is none.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_BEGINNINGS = {
    "PNG": rb"\x89PNG",
    "JPEG": rb"\xff\xd8\xff",
    "WEBP": rb"RIFF.{4}WEBP",
    "GIF": rb"GIF8",
    "BMP": rb"BM",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "PPM": rb"P[1-6]\s",
}
_AS_WHAT = "save it as PNG or JPEG, and give that"

# Bytes that a picture's file may have (Pillow reads a WebP file whole), and the pixels up to which
# a picture is decoded here.
_MOST_BYTES = 256 * 2**20
_DECODED = 4 * 2**20

# What a reader raises for a header that is not of its format.
_UNFIT = (SyntaxError, LookupError, TypeError, struct.error, EOFError)

_ORIENTATION = 0x0112  # the EXIF tag; from 5 on the picture lies on its side
_ON_ITS_SIDE = 5


def check_pictures(files: Mapping[str, tuple[str, Path]], spec: DiffuseSpec) -> None:
    """Check the picture and mask of a diffusion, by their places ``image`` and ``mask``.

    ``files`` maps places to the name for messages and the file.

    Raises:
        SpecRefusedError: names the file and what is wrong with it.
    """
    if "image" not in files:
        return
    image = picture_size("image", *files["image"])
    _check_sides(files["image"][0], image, spec)
    if "mask" not in files:
        return
    mask = picture_size("mask", *files["mask"])
    if mask != image:
        raise SpecRefusedError(
            f"the mask {files['mask'][0]} is {mask} pixels, but the image {files['image'][0]} is "
            f"{image}",
            field="mask",
            remedy=f"make the mask {image} pixels",
        )


def picture_size(field: str, name: str, path: Path) -> Size:
    """Return a picture's size as it is seen: turned upright as its EXIF data say.

    ``field`` is its place in the spec, ``name`` its owner's name for it.

    Raises:
        SpecRefusedError: it is empty, no picture of a known format, damaged, or too large.
    """
    _check_bytes(field, name, path)
    try:
        with path.open("rb") as file:
            image = _opened(file)
            if image is None:
                raise _not_a_picture(field, name, path)
            _check_pixels(field, name, image)
            if image.width * image.height <= _DECODED:
                image.load()
            return _upright(image)
    except SpecRefusedError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's decoders promise no set of errors
        raise _damaged(field, name, error) from None


def _opened(file: IO[bytes]) -> Image.Image | None:
    """Read the header with the first reader that takes it, None if none does.

    As ``Image.open`` does, but for its bound on pixels: that is one for the whole process, and it
    only warns of some pictures.
    """
    from PIL import Image

    Image.init()
    begin = file.read(16)
    for reader, accepts in (Image.OPEN[kind] for kind in FORMATS):
        if accepts is None or accepts(begin) is True:
            file.seek(0)
            with suppress(*_UNFIT):
                return reader(file, "")
    return None


def _check_bytes(field: str, name: str, path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SpecRefusedError(f"{name} cannot be read: {error.strerror}", field=field) from error
    if size == 0:
        raise SpecRefusedError(
            f"{name} is empty (0 bytes)", field=field, remedy="give a file that holds a picture"
        )
    if size > _MOST_BYTES:
        raise SpecRefusedError(
            f"{name} has {size / 1e6:,.0f} MB; a picture's file may have {_MOST_BYTES / 1e6:,.0f}",
            field=field,
            remedy=_AS_WHAT,
        )


def _check_pixels(field: str, name: str, image: Image.Image) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise SpecRefusedError(
            f"{name} is {Size(*image.size)}, {pixels / 1e6:,.0f} megapixels; allowed are at most "
            f"{MAX_PIXELS / 1e6:.0f}",
            field=field,
            remedy="make the picture smaller",
        )


def _check_sides(name: str, size: Size, spec: DiffuseSpec) -> None:
    """Refuse a picture whose own size the job would take, where no job can have it."""
    taken = [
        own for own, given in zip(size, (spec.width, spec.height), strict=True) if given is None
    ]
    if all(SIDE_STEP <= side <= LONGEST_SIDE for side in taken):
        return
    raise SpecRefusedError(
        f"{name} is {size}; the pictures would be of its size, and a side has from {SIDE_STEP} to "
        f"{LONGEST_SIDE:,} pixels",
        field="image",
        remedy="give --width and --height, or another picture",
    )


def _upright(image: Image.Image) -> Size:
    size = Size(*image.size)
    return Size(size.height, size.width) if _orientation(image) >= _ON_ITS_SIDE else size


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 where there is none or it cannot be read.

    Pillow decodes a PNG to look for EXIF data behind the pixels; those are not looked for.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    found: Any = 1
    with suppress(Exception):  # damaged EXIF data say nothing
        found = int(image.getexif().get(_ORIENTATION, 1))
    return int(found)


def _not_a_picture(field: str, name: str, path: Path) -> SpecRefusedError:
    with path.open("rb") as file:
        begin = file.read(12)
    for kind, pattern in _BEGINNINGS.items():
        if re.match(pattern, begin, re.DOTALL):
            reason = f"begins as {kind}, but its header is damaged or cut short"
            return SpecRefusedError(f"{name} {reason}", field=field, remedy=_AS_WHAT)
    return SpecRefusedError(
        f"{name} is not a picture of a format that is read ({', '.join(FORMATS)})",
        field=field,
        remedy=_AS_WHAT,
    )


def _damaged(field: str, name: str, error: Exception) -> SpecRefusedError:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return SpecRefusedError(
        f"{name} is damaged or cut short: {reason}", field=field, remedy=_AS_WHAT
    )
