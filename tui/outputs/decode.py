"""Picture files become pictures of the size that is drawn.

The rule this module protects: a file is somebody else's. Its size is read before its pixels, more
pixels than the bound are never unpacked, and whatever else is wrong with it is one sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from daemon.errors import StudioqError
from tui.outputs.safe import one_line

MOST_PIXELS = 50_000_000

Box = tuple[int, int]
Colour = tuple[int, int, int]

_FORMATS = ("PNG", "JPEG")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a picture goes: ``columns`` by ``rows`` cells of ``cell`` pixels on ``background``."""

    columns: int
    rows: int
    cell: tuple[int, int] = (10, 20)
    background: Colour = (0, 0, 0)

    def fit(self, width: int, height: int) -> Box:
        """Return the cells that a picture of so many pixels fills, its proportions kept."""
        cell_width, cell_height = self.cell
        scale = min(self.columns * cell_width / width, self.rows * cell_height / height)
        columns = round(width * scale / cell_width)
        rows = round(height * scale / cell_height)
        return max(1, min(self.columns, columns)), max(1, min(self.rows, rows))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of ``columns`` by ``rows`` cells, drawn from ``image``; ``size`` is the file's."""

    image: Image.Image
    columns: int
    rows: int
    size: tuple[int, int]


def open_picture(path: Path, frame: Frame, *, half_cells: bool) -> Picture:
    """Return the picture in ``path`` as it is drawn in ``frame``: two pixels a cell, or all.

    Raises:
        StudioqError: it is too large, damaged, or no picture.
    """
    name = one_line(path.name)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            size = image.size
            _check_size(name, size)
            columns, rows = frame.fit(*size)
            return Picture(
                image=_drawn(image, frame, (columns, rows), half_cells=half_cells),
                columns=columns,
                rows=rows,
                size=size,
            )
    except StudioqError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, "more pixels than its reader takes") from None
    except MemoryError:
        raise _too_large(name, "more than the memory that is left") from None
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise what they like
        raise StudioqError(
            f"{name} cannot be shown as a picture: {_reason(error, path)}",
            remedy="s saves it as it is",
        ) from None


def _check_size(name: str, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise _too_large(name, f"{width:,} by {height:,} pixels")


def _too_large(name: str, what: str) -> StudioqError:
    return StudioqError(
        f"{name} has {what}; up to {MOST_PIXELS // 1_000_000} million are drawn here",
        remedy="O opens it with the system's viewer, s saves it",
    )


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is neither PNG nor JPEG, or damaged from its beginning on"
    text = str(error).replace(str(path), path.name).splitlines()
    return one_line(text[0]) if text else type(error).__name__


def _drawn(image: Image.Image, frame: Frame, cells: Box, *, half_cells: bool) -> Image.Image:
    columns, rows = cells
    cell_width, cell_height = (1, 2) if half_cells else frame.cell
    target = (columns * cell_width, rows * cell_height)
    image.draft("RGB", (2 * target[0], 2 * target[1]))  # JPEG is unpacked smaller
    image.load()
    return _opaque(image, frame.background).resize(target, Image.Resampling.BOX, reducing_gap=2.0)


def _opaque(image: Image.Image, background: Colour) -> Image.Image:
    """Return the picture in RGB, what is transparent laid on the background."""
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    under = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(under, image.convert("RGBA")).convert("RGB")
