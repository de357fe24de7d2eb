"""Where the plots stand in the place there is.

The rule this module protects: a plot is never smaller than what can be read. Where not even one
fits, the numbers are shown as a table; where not all fit, the tab scrolls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A title, a frame of two rows, the steps' numbers, and four rows of curves.
LEAST_ROWS = 8
LEAST_COLUMNS = 26
# The lines above the plots.
_HEADER = 3
# The first plot is the loss in most jobs, and gets more.
_FIRST_ROWS = 10
_FIRST_SHARE = 1.6
# With two jobs in their titles plots are wider.
LEAST_COMPARED = 46
# From this width on three stand side by side.
_THREE = 150


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Columns, the height of each row, and how many columns each plot takes."""

    columns: int
    rows: tuple[int, ...]
    spans: tuple[int, ...]


def fits(width: int, height: int) -> bool:
    """Return whether a place of the whole tab's size is enough for plots."""
    return width >= LEAST_COLUMNS and height >= _FIRST_ROWS + _HEADER


def arrange(width: int, height: int, count: int, least: int = LEAST_COLUMNS) -> Arrangement:
    """Return how ``count`` plots stand in a place; it may be higher than the place.

    ``least`` is the width of a plot from which another stands beside it.
    The first takes a whole row, and so does the last if it is alone in its own.
    """
    columns = 3 if width >= _THREE else 2 if width >= 2 * least else 1
    columns = max(1, min(columns, count - 1))
    spans = [1] * count
    if count:
        spans[0] = columns
        spans[-1] += -sum(spans) % columns
    return Arrangement(
        columns=columns, rows=_heights(height, sum(spans) // columns), spans=tuple(spans)
    )


def _heights(height: int, number: int) -> tuple[int, ...]:
    """Divide the height between rows, the first of which is higher; none is below the least."""
    if number <= 1:
        return (max(height, _FIRST_ROWS),)
    others = int(height / (number - 1 + _FIRST_SHARE))
    if others < LEAST_ROWS:
        return (_FIRST_ROWS, *[LEAST_ROWS] * (number - 1))
    return (height - others * (number - 1), *[others] * (number - 1))


def packed(words: Sequence[str], width: int, lines: int) -> list[list[int]] | None:
    """Return which words, two spaces apart, stand in which line; None if they do not fit."""
    rows: list[list[int]] = [[]]
    used = 0
    for index, word in enumerate(words):
        room = len(word) if not rows[-1] else used + 2 + len(word)
        if room > width and rows[-1]:
            rows.append([])
            room = len(word)
        rows[-1].append(index)
        used = room
    return rows if len(rows) <= lines else None
