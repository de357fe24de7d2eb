"""What the tab knows of a log: the lines in memory, the log's end, what is searched for.

The rule this module protects: who reads further up is not disturbed. What comes at the end then is
counted, and taken into memory only while no line that is there has to make room for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tui.log.lines import Line
from tui.log.search import Matches, Needle
from tui.log.source import Piece
from tui.log.window import Window


class Way(Enum):
    """Where a piece that was asked for goes: above, below, or in the place of everything."""

    UP = "up"
    DOWN = "down"
    ANEW = "anew"


@dataclass(frozen=True, kw_only=True)
class Tail:
    """The log's end as far as it was read: the end of its last complete line, and the rest."""

    stop: int = 0
    open: Line | None = None
    size: int = 0
    state: str = ""


class Model:
    """One job's log as it is shown. Lives in the thread that draws."""

    def __init__(self, window: Window | None = None) -> None:
        self.window = Window() if window is None else window
        self.clear()

    def clear(self) -> None:
        """Forget everything of the log; the search's text stays the caller's."""
        self.window.clear()
        self.tail: Tail | None = None
        self.following = True
        self.unseen = 0
        self.stop_searching()

    def stop_searching(self) -> None:
        """Forget the search."""
        self.needle: Needle | None = None
        self.matches = Matches(0)
        self.current: int | None = None

    def search(self, needle: Needle) -> None:
        """Look for ``needle`` from now on; what the file holds is still to be searched."""
        self.needle = needle
        self.current = None
        self.restart_search()

    def restart_search(self) -> None:
        """Forget what was found, as the log is another."""
        self.matches = Matches(self.tail.stop if self.tail else 0)

    @property
    def is_at_end(self) -> bool:
        """Whether the lines in memory reach to the log's end."""
        return self.tail is not None and self.window.stop == self.tail.stop

    @property
    def size(self) -> int:
        """The log's length in bytes, as far as is known."""
        return self.tail.size if self.tail else 0

    def follow(self, on: bool) -> None:
        """Show what comes, or stay."""
        if on or self.following:
            self.unseen = 0
        self.following = on

    def take(self, piece: Piece) -> None:
        """Take what the follower has read."""
        if piece.fresh:
            self._begin(piece)
        else:
            self._go_on(piece)

    def _go_on(self, piece: Piece) -> None:
        was_at_end = self.is_at_end
        self.tail = Tail(stop=piece.stop, open=piece.open, size=piece.size, state=piece.state)
        if not self.following:
            self.unseen += len(piece.lines)
        if was_at_end and (self.following or self.window.has_room(piece.lines)):
            self.window.append(piece.lines, piece.stop, piece.open)
        elif was_at_end:
            self.window.open = None
        if self.needle is not None:
            starts = [line.start for line in piece.lines if self.needle.is_in(line.text)]
            self.matches.add_after(starts, piece.start, piece.stop)

    def take_asked(self, piece: Piece, way: Way) -> bool:
        """Take what was asked for; return whether it still fits."""
        if way is Way.ANEW:
            self.window.clear(piece.start)
            self._add_below(piece)
        elif way is Way.DOWN and piece.start == self.window.stop:
            self._add_below(piece)
        elif way is Way.UP and piece.stop == self.window.start:
            self.window.prepend(piece.lines)
        else:
            return False
        return True

    def _begin(self, piece: Piece) -> None:
        self.window.clear(piece.start)
        self.window.append(piece.lines, piece.stop, piece.open)
        self.tail = Tail(stop=piece.stop, open=piece.open, size=piece.size, state=piece.state)
        self.following, self.unseen, self.current = True, 0, None
        self.restart_search()

    def _add_below(self, piece: Piece) -> None:
        at_end = self.tail is not None and piece.stop == self.tail.stop
        self.window.append(
            piece.lines, piece.stop, self.tail.open if self.tail and at_end else None
        )

    def above(self, start: int) -> int | None:
        """Return the nearest match above the line at ``start``, None where none is known yet."""
        window = self.window
        between = self.matches.before(start) if start > window.stop else None
        if between is not None and between >= window.stop:
            return between
        for line in reversed(window.until(start)):
            if self._matches(line):
                return line.start
        return self.matches.before(min(start, window.start))

    def below(self, start: int) -> int | None:
        """Return the nearest match below the line at ``start``, None where none is known yet."""
        window = self.window
        if start < window.start:
            return self.matches.after(start)
        for line in window.behind(start):
            if self._matches(line):
                return line.start
        if self.matches.low > window.stop:
            return None
        return self.matches.after(max(start, window.stop - 1))

    def _matches(self, line: Line) -> bool:
        return self.needle is not None and self.needle.is_in(line.text)
