"""A text of bounded size in lines as wide as the view, made while it is read or grows.

The rule this module protects: what is held is bounded, by characters and by lines; of a text that
grows the end is kept, and it is known that something was left out.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

MOST_CHARACTERS = 1_000_000
MOST_LINES = 20_000
_LEAST_WIDTH = 4


class Piece(NamedTuple):
    """A line of the view: characters ``start`` to ``stop`` of line ``line`` of the text."""

    line: int
    start: int
    stop: int


class Wrapped:
    """Lines of text, without control characters, and the pieces of them that a view shows."""

    def __init__(self, width: int = 80) -> None:
        self.width = max(_LEAST_WIDTH, width)
        self.lines: list[str] = []
        self.pieces: list[Piece] = []
        self.left_out = False
        self._characters = 0

    def clear(self) -> None:
        """Forget everything."""
        self.lines, self.pieces = [], []
        self.left_out, self._characters = False, 0

    def rewrap(self, width: int) -> None:
        """Fit the lines to another width."""
        self.width = max(_LEAST_WIDTH, width)
        self.pieces = []
        for number in range(len(self.lines)):
            self._wrap(number)

    def append(self, text: str) -> None:
        """Add text; it goes on where the last one ended."""
        first, *others = text.split("\n")
        last = max(0, len(self.lines) - 1)
        start = self.pieces.pop().start if self.pieces else 0
        self.lines = self.lines or [""]
        self.lines[-1] += first
        self.lines += others
        self._characters += len(text)
        self._wrap(last, start)
        for number in range(last + 1, len(self.lines)):
            self._wrap(number)
        if self._characters > MOST_CHARACTERS or len(self.lines) > MOST_LINES:
            self._shorten()

    def text(self, piece: Piece) -> str:
        """Return what a piece shows."""
        return self.lines[piece.line][piece.start : piece.stop]

    def _wrap(self, number: int, start: int = 0) -> None:
        """Add the pieces of a line from the character ``start`` on, where one begins."""
        line = self.lines[number]
        for stop in breaks(line, self.width, start):
            self.pieces.append(Piece(number, start, stop))
            start = stop
        self.pieces.append(Piece(number, start, len(line)))

    def _shorten(self) -> None:
        """Keep the last three quarters of what may be held, so that this is rare."""
        self.left_out = True
        lines = self.lines[-MOST_LINES * 3 // 4 :]
        room = MOST_CHARACTERS * 3 // 4
        lines[-1] = lines[-1][-room:]
        kept: list[str] = []
        while lines and len(lines[-1]) + 1 <= room + 1:
            room -= len(lines[-1]) + 1
            kept.append(lines.pop())
        self.lines = kept[::-1]
        self._characters = sum(map(len, self.lines)) + len(self.lines)
        self.rewrap(self.width)


def breaks(line: str, width: int, start: int = 0) -> list[int]:
    """Return where a line is broken to fit ``width`` cells: after a space, else anywhere."""
    found = []
    length = len(line)
    simple = line.isascii()
    while length - start > width or (not simple and cell_len(line[start:]) > width):
        most = start + (width if simple else _fitting(line[start : start + width], width))
        space = line.rfind(" ", start + 1, most)
        start = most if space < 0 or line[most : most + 1] == " " == line[most - 1] else space + 1
        found.append(start)
    return found


def _fitting(text: str, width: int) -> int:
    """Return how many characters of ``text`` fit into ``width`` cells, at least one."""
    if cell_len(text) <= width:
        return max(1, len(text))
    cut = set_cell_size(text, width)
    return max(1, len(cut) - (1 if cut[-1] == " " != text[len(cut) - 1] else 0))
