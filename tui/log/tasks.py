"""What the tab has running in threads: following the log, reading a part of it, searching it.

The rule this module protects: a thread touches nothing that is drawn. It hands over what it read
and waits until that was taken, so that a flood of lines queues up in the daemon's file and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any

from daemon.errors import NotFoundError, StudioqError
from tui.log.model import Way
from tui.log.search import Needle
from tui.log.source import (
    PIECE,
    Follower,
    Patient,
    Piece,
    StoppedError,
    read_after,
    read_before,
    scan_back,
)
from tui.pane import Connect

# Seconds that the daemon may let a follower wait; a thread lives on so long after it was stopped.
WAIT = 0.5

# Seconds between two pieces of a log that is written quickly.
FRAME = 0.1

# States in which a log does not grow.
RESTING = frozenset({"held", "waiting", "queued", "paused", "succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Something that runs for job ``number`` until it is stopped."""

    number: int
    stop: Event = field(default_factory=Event)


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """The daemon is away or says no; with None it is back. After a ``final`` one nothing comes."""

    error: StudioqError | None
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class Rested:
    """A follower has read everything of a job that was in ``state``."""

    state: str


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What was asked for, where it goes, and the byte to bring to the screen."""

    piece: Piece | None
    way: Way
    at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The starts of the matching lines from byte ``low`` on; ``over`` if nothing is left."""

    low: int
    starts: list[int]
    over: bool = False


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What to read: lines up to ``before``, and from ``after`` on."""

    way: Way
    before: int | None = None
    after: int | None = None


# Hands something over to the thread that draws, and returns when it was taken.
Tell = Callable[[Any], None]


def follow(
    connect: Connect, task: Task, at: int | None, at_end: Callable[[], bool], tell: Tell
) -> None:
    """Hand over the log's end and what is added, until the job rests or the task is stopped."""

    def run(read: Patient) -> None:
        follower = Follower(read, at)
        wait, shown = 0.0, None
        while not task.stop.is_set():
            piece = follower.next(wait, at_end=at_end())
            news = bool(piece.lines) or piece.fresh or piece.open != shown
            if news:
                tell(piece)
            elif piece.state in RESTING:
                return tell(Rested(state=piece.state))
            wait, shown = WAIT, piece.open
            if piece.size - piece.stop < PIECE:
                task.stop.wait(FRAME)
        return None

    _run(connect, task, run, tell)


def fetch(connect: Connect, task: Task, ask: Ask, tell: Tell) -> None:
    """Hand over one part of the log."""

    def run(read: Patient) -> None:
        before = None if ask.before is None else read_before(read, ask.before)
        after = None if ask.after is None else read_after(read, ask.after)
        at = ask.after if ask.way is Way.ANEW else None
        tell(Fetched(piece=_joined(before, after), way=ask.way, at=at))

    _run(connect, task, run, tell)


def search(connect: Connect, task: Task, needle: Needle, stop: int, tell: Tell) -> None:
    """Hand over the matches before byte ``stop``, the last ones first."""

    def run(read: Patient) -> None:
        low = stop
        for low, starts in scan_back(read, needle, stop):
            tell(Searched(low=low, starts=starts))
        tell(Searched(low=low, starts=[], over=True))

    _run(connect, task, run, tell)


def _joined(before: Piece | None, after: Piece | None) -> Piece | None:
    if before is None or after is None:
        return before or after
    return Piece(
        lines=before.lines + after.lines,
        start=before.start,
        stop=after.stop,
        open=after.open,
        size=after.size,
        state=after.state,
    )


def _run(connect: Connect, task: Task, run: Callable[[Patient], None], tell: Tell) -> None:
    """Read with a client of one's own; what goes wrong is handed over."""

    def handed(what: Any) -> None:
        if task.stop.is_set():
            raise StoppedError
        tell(what)

    try:
        with connect() as client:
            reading = partial(client.read_log, task.number)
            run(Patient(reading, task.stop, lambda error: handed(Trouble(error=error))))
    except NotFoundError as error:
        tell(Trouble(error=error, final=True))
    except StoppedError:
        pass
    except StudioqError as error:
        tell(Trouble(error=error, final=True))
