"""Pictures as half-cells of colour: two pixels in each cell, one above the other.

The rule this module protects: the lines are made in the thread that has decoded the picture; the
thread that draws only hands them out. (textual-image makes its half-cells while it draws, 40 to
110 ms for 150 by 50 cells, with a call that Pillow has deprecated.)
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby

from PIL import Image
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip


def half_cells(image: Image.Image) -> list[Strip]:
    """Return the lines of a picture in RGB, of one pixel a column and two a row."""
    data = image.tobytes()
    pixels = [data[start : start + 3] for start in range(0, len(data), 3)]
    rows = [pixels[start : start + image.width] for start in range(0, len(pixels), image.width)]
    return [_line(upper, lower) for upper, lower in zip(rows[::2], rows[1::2], strict=True)]


def _line(upper: list[bytes], lower: list[bytes]) -> Strip:
    cells = groupby(zip(upper, lower, strict=True))
    segments = [Segment("▀" * len(list(run)), _style(*pair)) for pair, run in cells]
    return Strip(segments, len(upper))


@lru_cache(maxsize=4096)
def _style(upper: bytes, lower: bytes) -> Style:
    return Style.from_color(Color.from_rgb(*upper), Color.from_rgb(*lower))
