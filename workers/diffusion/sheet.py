"""The contact sheet: every picture of a job, small, on one page with its number and seed.

The rule this module protects: a sheet costs the same whatever the job makes. It holds thumbnails
only, planned so that all of them together fit a page of 2048 pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from daemon.size import Size
from workers.diffusion.pictures import Pixels
from workers.files import whole_file

LIMIT = 2048

_GAP, _PADDING = 6, 3
_SMALLEST_CELL = 24
_FONT_SIZES = (9, 16)
# Neither white nor black, so that a picture on either ground shows its edges.
_PAPER, _INK = (228, 228, 228), (48, 48, 48)

SHEET = "contact-sheet.png"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A picture on the sheet: its number, its seed, and the picture made small."""

    index: int
    seed: int
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A grid: how many cells, the picture's size in a cell, the cell, and the size of the type."""

    columns: int
    rows: int
    picture: Size
    cell: Size
    font_size: int

    @property
    def sheet(self) -> Size:
        """Return the size of the whole page."""
        return Size(
            _GAP + self.columns * (self.cell.width + _GAP),
            _GAP + self.rows * (self.cell.height + _GAP),
        )


def plan(count: int, picture: Size) -> Layout:
    """Return the grid for ``count`` pictures of one size that shows them largest on ``LIMIT``.

    Pictures are never enlarged. Among grids that show them equally large the squarest wins, then
    the one with fewest empty places.
    """
    layouts = (_grid(columns, count, picture) for columns in range(count, 0, -1))
    fitting = [layout for layout in layouts if max(layout.sheet) <= LIMIT]
    return max(
        fitting,
        key=lambda layout: (layout.picture, -max(layout.sheet), -layout.columns * layout.rows),
    )


def thumbnail(pixels: Pixels, size: Size) -> Image.Image:
    """Return (height, width, 3) pixels as a picture of ``size``, the layout's."""
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def draw_sheet(path: Path, thumbnails: Sequence[Thumbnail]) -> None:
    """Write ``path``, a PNG of the thumbnails in their order.

    They may be fewer than were planned, if the job was asked to finish early.

    Raises:
        DiskFullError: the disk is full; no file is left behind.
    """
    largest = Size(
        max(item.image.width for item in thumbnails),
        max(item.image.height for item in thumbnails),
    )
    layout = plan(len(thumbnails), largest)
    font = ImageFont.load_default(layout.font_size)
    label = _label_form(thumbnails, font, layout.cell.width)
    page = Image.new("RGB", layout.sheet, _PAPER)
    draw = ImageDraw.Draw(page)
    for place, item in enumerate(thumbnails):
        left, top = _corner(layout, place)
        shown = item.image
        page.paste(shown, (left + (layout.cell.width - shown.width) // 2, top))
        below = (left + layout.cell.width / 2, top + layout.picture.height + _PADDING)
        draw.text(below, label(item), fill=_INK, font=font, anchor="mt")
    with whole_file(path) as file:
        page.save(file, format="PNG", compress_level=6)


def _grid(columns: int, count: int, picture: Size) -> Layout:
    """Return the grid of so many columns; the page may be larger than ``LIMIT``."""
    rows = -(-count // columns)
    width = (LIMIT - _GAP) // columns - _GAP
    font_size = min(max(min(width, picture.width) // 10, _FONT_SIZES[0]), _FONT_SIZES[1])
    label = font_size + 2 * _PADDING
    height = (LIMIT - _GAP) // rows - _GAP - label
    scale = min(1.0, width / picture.width, height / picture.height)
    shown = Size(max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    return Layout(
        columns=columns,
        rows=rows,
        picture=shown,
        cell=Size(max(shown.width, _SMALLEST_CELL), shown.height + label),
        font_size=font_size,
    )


def _corner(layout: Layout, place: int) -> tuple[int, int]:
    """Return the left and upper edge of cell ``place``, filled row by row."""
    row, column = divmod(place, layout.columns)
    return (
        _GAP + column * (layout.cell.width + _GAP),
        _GAP + row * (layout.cell.height + _GAP),
    )


def _label_form(
    thumbnails: Sequence[Thumbnail], font: Font, width: int
) -> Callable[[Thumbnail], str]:
    """Return the longest way of writing labels that fits the cells of all pictures."""
    forms: tuple[Callable[[Thumbnail], str], ...] = (
        lambda item: f"{item.index} · seed {item.seed}",
        lambda item: f"{item.index} · {item.seed}",
    )
    for form in forms:
        if max(font.getlength(form(item)) for item in thumbnails) <= width:
            return form
    return lambda item: str(item.index)
