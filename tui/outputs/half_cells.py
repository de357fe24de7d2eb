"""Pictures as half-cells of colour: two pixels in each cell, one above the other.

The rule this module protects: the lines are made in the thread that has decoded the picture; the
thread that draws only hands them out. (textual-image makes its half-cells while it draws, 40 to
110 ms for 150 × 50 cells, with a call that Pillow has deprecated.)
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby

from PIL import Image
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

Pixel = tuple[int, int, int]


def half_cells(image: Image.Image) -> list[Strip]:
    """Return the lines of a picture in RGB, of one pixel a column and two a row."""
    pixels = list(image.get_flattened_data())
    width = image.width
    rows = [pixels[start : start + width] for start in range(0, len(pixels), width)]
    return [_line(upper, lower) for upper, lower in zip(rows[::2], rows[1::2], strict=True)]


def _line(upper: list[Pixel], lower: list[Pixel]) -> Strip:
    cells = groupby(zip(upper, lower, strict=True))
    segments = [Segment("▀" * len(list(run)), _style(*pair)) for pair, run in cells]
    return Strip(segments, len(upper))


@lru_cache(maxsize=4096)
def _style(upper: Pixel, lower: Pixel) -> Style:
    return Style.from_color(Color.from_rgb(*upper), Color.from_rgb(*lower))
