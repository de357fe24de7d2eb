"""Tables with headings of several lines, and sentences, in the width of a terminal.

The rule this module protects: on a terminal of 80 columns no line is longer than that; in a pipe no
line is folded, so that it can be searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from textwrap import wrap

from daemon.cli.table import Column, render

Row = Sequence[str]


def table(columns: Sequence[Column], rows: Iterable[Row], width: int | None) -> list[str]:
    """Return the lines of a table; a title's own lines stand above each other, the last lowest."""
    upwards = zip_longest(*(column.title.split("\n")[::-1] for column in columns), fillvalue="")
    first, *others = list(upwards)[::-1]
    titled = [replace(column, title=title) for column, title in zip(columns, first, strict=True)]
    return render(titled, [*others, *rows], width=width)


def fold(text: str, width: int | None) -> Iterator[str]:
    """Yield the lines of a sentence, at the terminal's ``width`` or in one (None: a pipe)."""
    if width is None:
        yield text
        return
    yield from wrap(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
