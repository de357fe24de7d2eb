"""Reads a job's log in pieces of lines: its end, what is added there, and what lies before.

The rule this module protects: a piece begins and ends where a line does, so that pieces fit
together wherever in the file they were read. A log of any size costs one piece of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event

from daemon.client.follow import Part
from daemon.errors import DaemonAwayError, NotFoundError, StudioqError
from tui.log.lines import Assembler, Line, first_start
from tui.log.search import Needle, matching_starts

# Bytes of the first look at a log, of a later one, and of a search.
TAIL = 256 << 10
PIECE = 1 << 20
SCAN = 4 << 20

# Bytes by which a reader may be behind before it goes to the end.
FAR = 16 << 20

# Seconds between two looks for a daemon that is away.
PAUSE = 0.5

# (offset, seconds to wait, most bytes): see ``Client.read_log``.
Reader = Callable[[int, float, int], Part]


class StoppedError(Exception):
    """Nobody wants the answer any more."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Complete lines from the byte ``start`` to ``stop``, and the incomplete one after them.

    ``size`` is how long the log was and ``state`` the job's when it was read. A ``fresh`` piece
    does not follow on the ones before.
    """

    lines: list[Line]
    start: int
    stop: int
    open: Line | None
    size: int
    state: str
    fresh: bool = False


class Patient:
    """A reader that outlasts a daemon that is away.

    Args:
        read: what reads.
        stop: set when nobody wants the answer any more.
        say: is told the error when the daemon goes away, and None when it is back.
    """

    def __init__(
        self, read: Reader, stop: Event, say: Callable[[StudioqError | None], None]
    ) -> None:
        self._read = read
        self._stop = stop
        self._say = say

    def __call__(self, offset: int, wait: float, most: int) -> Part:
        """Read, again and again while the daemon is away.

        Raises:
            StoppedError: it was stopped.
            NotFoundError: there is no such job, or it may not be read.
        """
        away = False
        while not self._stop.is_set():
            try:
                part = self._read(offset, wait, most)
            except NotFoundError:
                raise
            except StudioqError as error:
                if not away:
                    self._say(error)
                away = True
                self._stop.wait(PAUSE if isinstance(error, DaemonAwayError) else 10 * PAUSE)
            else:
                if away:
                    self._say(None)
                return part
        raise StoppedError


class Follower:
    """Gives a log's end, and then what is added; ``at`` is a line's start to go on from."""

    def __init__(self, read: Reader, at: int | None = None) -> None:
        self._read = read
        self._assembler = None if at is None else Assembler(at)

    def next(self, wait: float, *, at_end: bool = True) -> Piece:
        """Return the next piece, empty after ``wait`` seconds without one.

        It is ``fresh`` the first time, where the log was begun anew, and where it has grown by
        more than a reader ``at_end`` would want to see.
        """
        if self._assembler is None:
            return self._read_end()
        asked = self._assembler.end
        part = self._read(asked, wait, PIECE)
        if part.offset - len(part.data) != asked or (at_end and part.size - part.offset > FAR):
            return self._read_end()
        return _piece(self._assembler, part, part.data)

    def _read_end(self) -> Piece:
        part = self._read(-TAIL, 0.0, TAIL)
        begin = part.offset - len(part.data)
        skip = first_start(part.data) if begin else 0
        self._assembler = Assembler(begin + skip)
        return _piece(self._assembler, part, part.data[skip:], fresh=True)


def _piece(assembler: Assembler, part: Part, data: bytes, *, fresh: bool = False) -> Piece:
    start = assembler.stop
    lines = assembler.feed(data)
    return Piece(
        lines=lines,
        start=start,
        stop=assembler.stop,
        open=assembler.open(),
        size=part.size,
        state=part.state,
        fresh=fresh,
    )


def read_before(read: Reader, stop: int, most: int = TAIL) -> Piece | None:
    """Return the lines before the line that starts at ``stop``; None where the log has changed."""
    begin = max(0, stop - most)
    part = read(begin, 0.0, stop - begin)
    if part.offset != stop:
        return None
    skip = first_start(part.data) if begin else 0
    piece = _piece(Assembler(begin + skip), part, part.data[skip:])
    last = [piece.open] if piece.open else []
    return Piece(
        lines=piece.lines + last,
        start=piece.start,
        stop=stop,
        open=None,
        size=piece.size,
        state=piece.state,
    )


def read_after(read: Reader, start: int, most: int = TAIL) -> Piece | None:
    """Return complete lines from ``start`` on; None where the log has changed."""
    assembler = Assembler(start)
    while True:
        asked = assembler.end
        part = read(asked, 0.0, most)
        if part.offset - len(part.data) != asked:
            return None
        piece = _piece(assembler, part, part.data)
        # A progress bar may fill more than a piece without ending a line.
        if piece.lines or part.offset >= part.size or not part.data:
            return piece


def scan_back(read: Reader, needle: Needle, stop: int) -> Iterator[tuple[int, list[int]]]:
    """Search a log from the line at ``stop`` back to its beginning.

    Yields how far it came (a byte), and the starts of the lines that match in the new part.
    """
    while stop > 0:
        begin = max(0, stop - SCAN)
        part = read(begin, 0.0, stop - begin)
        if part.offset != stop:
            return
        skip = first_start(part.data) if begin else 0
        stop = begin + skip
        yield stop, matching_starts(needle, part.data[skip:], stop)
