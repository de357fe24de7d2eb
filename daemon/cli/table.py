"""Aligned columns that fit the terminal.

The rule it protects: a line never wraps on a terminal, and is never cut in a pipe.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

_GAP = "  "


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its title, whether it holds numbers, and how far it may shrink (0: not at all).

    ``spare``: one that may be left out (0: it may not), the highest number first. That is done
    before any column is cut.
    """

    title: str
    right: bool = False
    least: int = 0
    spare: int = 0


def cell_width(text: str) -> int:
    """Return the terminal cells that a text takes; wide East Asian characters take two."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def clip(text: str, width: int) -> str:
    """Return a text of at most ``width`` cells, with an ellipsis where something is missing."""
    if cell_width(text) <= width:
        return text
    while text and cell_width(text) > width - 1:
        text = text[:-1]
    return text + "…" if width > 0 else ""


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Return the columns of the terminal that stdout (or ``stream``) is; None where it is none."""
    stream = stream or sys.stdout
    if not stream.isatty():
        return None
    named = os.environ.get("COLUMNS", "")
    return int(named) if named.isdecimal() else os.get_terminal_size(stream.fileno()).columns


def render(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None,
    paint: Callable[[int, int, str], str] = lambda _row, _column, text: text,
) -> list[str]:
    """Return the lines of a table, its titles first.

    ``paint(row, column, text)`` may colour a padded cell; it must not change its width.
    """
    natural = _natural(columns, rows)
    kept = _kept(columns, natural, width)
    shown = [columns[place] for place in kept]
    widths = _fit(shown, [natural[place] for place in kept], width)
    lines = [_line(shown, widths, [column.title for column in shown])]
    for index, row in enumerate(rows):
        padded = _pad(shown, widths, [row[place] for place in kept])
        painted = [paint(index, place, text) for place, text in zip(kept, padded, strict=True)]
        lines.append(_GAP.join(painted).rstrip())
    return lines


def _kept(columns: Sequence[Column], widths: Sequence[int], width: int | None) -> list[int]:
    """Return the places of the columns that are shown: spare ones go until the line fits."""
    kept = list(range(len(columns)))
    while width is not None and _taken([widths[place] for place in kept]) > width:
        last = max(kept, key=lambda place: columns[place].spare)
        if not columns[last].spare:
            break
        kept.remove(last)
    return kept


def _taken(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _natural(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    return [
        max([cell_width(column.title), *(cell_width(row[index]) for row in rows)])
        for index, column in enumerate(columns)
    ]


def _fit(columns: Sequence[Column], widths: list[int], width: int | None) -> list[int]:
    """Take from the widest column that may shrink, until the line fits."""
    if width is None:
        return widths
    over = _taken(widths) - width
    while over > 0:
        spare = [
            size - column.least if column.least else 0
            for size, column in zip(widths, columns, strict=True)
        ]
        most = max(range(len(widths)), key=lambda index: (spare[index] > 0, widths[index]))
        if spare[most] <= 0:
            break
        widths[most] -= 1
        over -= 1
    return widths


def _pad(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> list[str]:
    padded = []
    for column, width, text in zip(columns, widths, row, strict=True):
        shown = clip(text, width)
        fill = " " * (width - cell_width(shown))
        padded.append(fill + shown if column.right else shown + fill)
    return padded


def _line(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str]) -> str:
    return _GAP.join(_pad(columns, widths, row)).rstrip()
