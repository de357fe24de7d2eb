"""The part of a log that is in memory: consecutive lines, and the rows that they take.

The rule this module protects: the lines are consecutive in the file, and there are never more of
them than the window holds; whoever adds at one end takes away at the other. Rows are counted from
a point that stays, so that lines added above do not renumber those below.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from rich.cells import get_character_cell_size

from tui.log.lines import Line

MOST_LINES = 20_000
MOST_CHARACTERS = 4 << 20


class Window:
    """Lines from ``start`` to ``stop``, and the incomplete one after them.

    A row's number grows downwards from ``top`` to ``bottom``. With a ``width`` in cells long lines
    are wrapped, with None each takes one row.
    """

    def __init__(self, *, lines: int = MOST_LINES, characters: int = MOST_CHARACTERS) -> None:
        self._most_lines = lines
        self._most_characters = characters
        self.width: int | None = None
        self.clear()

    def clear(self, stop: int = 0) -> None:
        """Forget everything; the next lines begin at ``stop``."""
        self.lines: list[Line] = []
        self.open: Line | None = None
        self.stop = stop
        self.cells = 0
        self._characters = 0
        self._tops = [0]

    @property
    def start(self) -> int:
        """The byte at which the first line begins."""
        return self.lines[0].start if self.lines else self.stop

    @property
    def top(self) -> int:
        """The number of the first row."""
        return self._tops[0]

    @property
    def bottom(self) -> int:
        """The number after the last row's."""
        return self._tops[-1] + (len(self.breaks(self.open)) if self.open else 0)

    def has_room(self, lines: Sequence[Line]) -> bool:
        """Return whether the lines can be added without others going."""
        more = sum(len(line.text) for line in lines)
        return (
            len(self.lines) + len(lines) <= self._most_lines
            and self._characters + more <= self._most_characters
        )

    def __len__(self) -> int:
        return len(self.lines) + (self.open is not None)

    def __getitem__(self, index: int) -> Line:
        if index == len(self.lines) and self.open is not None:
            return self.open
        return self.lines[index]

    def __iter__(self) -> Iterator[Line]:
        return (self[index] for index in range(len(self)))

    def append(self, lines: Sequence[Line], stop: int, open: Line | None) -> None:  # noqa: A002
        """Add the lines that follow, up to ``stop``; at the top some may go."""
        for line in lines:
            self._tops.append(self._tops[-1] + len(self.breaks(line)))
        self._note(lines)
        self.lines.extend(lines)
        self.stop, self.open = stop, open
        if open is not None:
            self.cells = max(self.cells, open.cells)
        if surplus := self._surplus(self.lines):
            self._forget(self.lines[:surplus])
            del self.lines[:surplus], self._tops[:surplus]

    def prepend(self, lines: Sequence[Line]) -> bool:
        """Add the lines before the first one; return whether at the bottom some have gone."""
        tops, row = [], self.top
        for line in reversed(lines):
            row -= len(self.breaks(line))
            tops.append(row)
        self._note(lines)
        self.lines[:0] = lines
        self._tops[:0] = reversed(tops)
        surplus = self._surplus(reversed(self.lines))
        if surplus:
            self.stop, self.open = self.lines[-surplus].start, None
            self._forget(self.lines[-surplus:])
            del self.lines[-surplus:], self._tops[-surplus:]
        return bool(surplus)

    def set_width(self, width: int | None) -> None:
        """Wrap at ``width`` cells, or not at all; the first row keeps its number."""
        if width == self.width:
            return
        self.width = width
        tops = [self.top]
        for line in self.lines:
            tops.append(tops[-1] + len(self.breaks(line)))
        self._tops = tops

    def breaks(self, line: Line) -> Sequence[int]:
        """Return the cells at which the rows of a line begin."""
        if self.width is None or line.cells <= self.width:
            return (0,)
        if line.cells == len(line.text):
            return range(0, line.cells, self.width)
        return _wide_breaks(line.text, self.width)

    def at(self, row: int) -> tuple[int, int] | None:
        """Return the line in a row, and which of its rows this is; None where there is none."""
        if not self.top <= row < self.bottom:
            return None
        index = min(bisect_right(self._tops, row) - 1, len(self.lines))
        return index, row - self._tops[index]

    def row_of(self, index: int) -> int:
        """Return the first row of a line."""
        return self._tops[index]

    def find(self, offset: int) -> int | None:
        """Return the line that holds a byte, None where the window does not."""
        if not self.start <= offset or not len(self):
            return None
        if offset >= self.stop:
            return len(self.lines) if self.open is not None else None
        return bisect_right(self.lines, offset, key=lambda line: line.start) - 1

    def until(self, offset: int) -> list[Line]:
        """Return the lines that start before a byte."""
        return [line for line in self if line.start < offset]

    def behind(self, offset: int) -> list[Line]:
        """Return the lines that start after a byte."""
        return [line for line in self if line.start > offset]

    def _note(self, lines: Sequence[Line]) -> None:
        self._characters += sum(len(line.text) for line in lines)
        self.cells = max(self.cells, max((line.cells for line in lines), default=0))

    def _forget(self, lines: Sequence[Line]) -> None:
        self._characters -= sum(len(line.text) for line in lines)

    def _surplus(self, lines: Iterator[Line] | Sequence[Line]) -> int:
        """Count how many of ``lines`` have to go, in their order; the last one stays."""
        left, characters = len(self.lines), self._characters
        for count, line in enumerate(lines):
            if (left <= self._most_lines and characters <= self._most_characters) or left == 1:
                return count
            left, characters = left - 1, characters - len(line.text)
        return 0


def _wide_breaks(text: str, width: int) -> list[int]:
    """Break before the character that would pass the width; it may be two cells wide."""
    breaks, cells = [0], 0
    for character in text:
        size = get_character_cell_size(character)
        if cells + size - breaks[-1] > width:
            breaks.append(cells)
        cells += size
    return breaks
