"""Searching in a log: what matches, and where in the file the matches are.

The rule this module protects: a match is what the reader sees. Escape sequences and overwritten
progress do not match, and a line counts once however often it matches.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from tui.log.lines import Assembler, slices

MOST_MATCHES = 100_000

# Bytes that are looked at without a pause for other threads.
_SLICE = 256 << 10

# Where one of these is, what is shown is not what is written.
_CONTROLS = (b"\x1b", b"\r", b"\t", b"\x9b")


class Needle:
    """A text to look for; capitals count only where it has some."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._folds = text == fold(text)

    def is_in(self, text: str) -> bool:
        """Return whether a line's text matches."""
        return self.text in (fold(text) if self._folds else text)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where in a line's text the matches are."""
        seen = fold(text) if self._folds else text
        at = seen.find(self.text)
        while at >= 0:
            yield at, at + len(self.text)
            at = seen.find(self.text, at + len(self.text))

    def may_be_in(self, data: bytes) -> bool:
        """Return whether bytes of a log have to be looked at line by line."""
        if any(control in data for control in _CONTROLS):
            return True
        return self.is_in(data.decode("utf-8", "replace"))


def fold(text: str) -> str:
    """Return the text in small letters, of the same length."""
    small = text.lower()
    if len(small) == len(text):
        return small
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def matching_starts(needle: Needle, data: bytes, start: int) -> list[int]:
    """Return the starts of the lines that match in bytes that begin with a line at ``start``."""
    found: list[int] = []
    for place, piece in slices(data, _SLICE):
        if needle.may_be_in(piece):
            assembler = Assembler(start + place)
            lines = assembler.feed(piece)
            if last := assembler.open():
                lines.append(last)
            found += [line.start for line in lines if needle.is_in(line.text)]
    return found


class Matches:
    """The starts of the lines that match between the bytes ``low`` and ``high``, in order.

    No more than ``most`` are kept; then nothing is added at that end any more.
    """

    def __init__(self, at: int, *, most: int = MOST_MATCHES) -> None:
        self.low = self.high = at
        self._most = most
        self._starts = array("q")

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def is_full(self) -> bool:
        """Whether there are too many."""
        return len(self._starts) >= self._most

    def add_before(self, starts: Sequence[int], low: int) -> None:
        """Add what was found from ``low`` on, before what is known."""
        if not self.is_full:
            self._starts = array("q", starts) + self._starts
            self.low = low

    def add_after(self, starts: Sequence[int], begin: int, high: int) -> None:
        """Add what was found between ``begin`` and ``high``, if it follows on what is known."""
        if begin == self.high and not self.is_full:
            self._starts.extend(starts)
            self.high = high

    def before(self, start: int) -> int | None:
        """Return the nearest match above a line."""
        at = bisect_left(self._starts, start)
        return self._starts[at - 1] if at else None

    def after(self, start: int) -> int | None:
        """Return the nearest match below a line."""
        at = bisect_right(self._starts, start)
        return self._starts[at] if at < len(self._starts) else None

    def number(self, start: int) -> int | None:
        """Return which match, from 1, a line is; None where it is not known as one."""
        at = bisect_left(self._starts, start)
        return at + 1 if at < len(self._starts) and self._starts[at] == start else None
