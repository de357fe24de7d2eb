"""Cuts the bytes of a log into lines.

The rule this module protects: the lines depend on the bytes alone, not on the pieces in which they
came. Every byte from the first line's start on belongs to exactly one line, so that a line's start
is a place in the file to which a reader can come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.cells import cell_len

from tui.log.ansi import Span, clean

# Bytes of a line; a longer one goes on as the next line.
LONGEST = 4096


class Line(NamedTuple):
    """A line as it is shown; a tuple, because there are twenty thousand of them.

    ``start`` is the byte at which it begins, ``cells`` how wide it is.
    """

    start: int
    text: str
    cells: int
    spans: tuple[Span, ...] = ()


class Assembler:
    """Takes bytes in order, from ``offset`` on, and gives the lines that are complete.

    A line end ends a line, and so does byte number ``LONGEST``. Of what a carriage return
    overwrote nothing is left: progress bars show their last state.
    """

    def __init__(self, offset: int) -> None:
        self.stop = offset
        self._open = b""
        self._dropped = 0

    def feed(self, data: bytes) -> list[Line]:
        """Return the lines that ``data`` completes."""
        *whole, last = (self._open + data).split(b"\n")
        lines: list[Line] = []
        for raw in whole:
            self._finish(raw, lines)
        self._keep(last, lines)
        return lines

    @property
    def end(self) -> int:
        """The byte after the last one that was fed."""
        return self.stop + self._dropped + len(self._open)

    def open(self) -> Line | None:
        """Return the line that is not complete, as it stands; None where there is nothing of it."""
        if not self._open:
            return None
        return _line(self.stop, self._open.removesuffix(b"\r").rpartition(b"\r")[2])

    def _finish(self, raw: bytes, lines: list[Line]) -> None:
        if len(raw) > LONGEST or b"\r" in raw:
            state = self._cut(raw, lines)
            raw, length = state.kept, state.used
        else:
            length = len(raw)
        lines.append(_line(self.stop, raw))
        self.stop += self._dropped + length + 1
        self._dropped = 0

    def _keep(self, raw: bytes, lines: list[Line]) -> None:
        if len(raw) > LONGEST or b"\r" in raw:
            state = self._cut(raw, lines)
            raw = state.kept + (b"\r" if raw.endswith(b"\r") else b"")
            self._dropped += state.used - len(raw)
        self._open = raw

    def _cut(self, raw: bytes, lines: list[Line]) -> _State:
        """Take off what is too long as lines of their own; return what is left."""
        kept, used = b"", 0
        for number, part in enumerate(raw.split(b"\r")):
            segment = part
            used += bool(number)
            while len(segment) > LONGEST:
                cut = _border(segment)
                lines.append(_line(self.stop, segment[:cut]))
                self.stop += self._dropped + used + cut
                self._dropped, used, kept = 0, 0, b""
                segment = segment[cut:]
            used += len(segment)
            kept = segment or kept
        return _State(kept, used)


class _State(NamedTuple):
    """What a raw line shows, and the bytes that led there."""

    kept: bytes
    used: int


def _line(start: int, raw: bytes) -> Line:
    text = raw.decode("utf-8", "replace")
    if text.isascii() and text.isprintable():
        return Line(start, text, len(text))
    text, spans = clean(text)
    return Line(start, text, cell_len(text), spans)


def _border(segment: bytes) -> int:
    """Return where to cut a long segment, not within a character of UTF-8."""
    cut = LONGEST
    while cut > LONGEST - 3 and segment[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut


def first_start(data: bytes) -> int:
    """Return where the first whole line begins in bytes that begin anywhere.

    Where no line ends before the last byte, a carriage return or the bytes' own start has to do.
    """
    last = len(data) - 1
    if after := data.find(b"\n", 0, last) + 1 or data.find(b"\r", 0, last) + 1:
        return after
    return next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)


def slices(data: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield pieces of about ``size`` bytes that end with a line, each with its place."""
    start = 0
    while start < len(data):
        stop = data.find(b"\n", start + size - 1) + 1 or len(data)
        yield start, data[start:stop]
        start = stop
