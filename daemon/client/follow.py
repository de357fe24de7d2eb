"""Following a job until it ends: its log, its streamed text, its outcome.

The rule it protects: a daemon that is restarted does not end anybody's wait. While it is away the
follower tries again for ``grace`` seconds, and carries on at the byte where it stopped.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from daemon.errors import DaemonAwayError, WaitTimedOutError

ENDED = frozenset({"succeeded", "failed", "cancelled"})

# Seconds of one long poll, and between two looks for a daemon that is away.
POLL = 25.0
PAUSE = 0.25

T = TypeVar("T")
Clock = Callable[[], float]
Reader = Callable[[int, float], "Part"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a job's log or text; ``offset`` is the byte after it, ``state`` the job's then.

    ``size`` is how many bytes there were in all.
    """

    data: bytes
    offset: int
    state: str
    size: int = 0

    @property
    def ended(self) -> bool:
        """Whether the job had ended when this was read."""
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait: ``seconds`` for a job (None: for ever), ``grace`` for an absent daemon."""

    seconds: float | None = None
    grace: float = 30.0
    clock: Clock = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def deadline(self) -> float:
        """Return the clock's reading at which the wait is over."""
        return float("inf") if self.seconds is None else self.clock() + self.seconds


def follow(read: Reader, *, offset: int, patience: Patience, number: int) -> Iterator[str]:
    """Yield text from byte ``offset`` on, as it is written, until the job has ended.

    ``read(offset, wait)`` answers with a part. Bytes that are not UTF-8 become U+FFFD.

    Raises:
        WaitTimedOutError: the time was up first.
        DaemonAwayError: the daemon was away for longer than the grace.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    deadline = patience.deadline()
    steady = _Steady(patience)
    while True:
        began = patience.clock()
        part = steady(partial(read, offset, _poll(deadline, patience)))
        offset = part.offset
        if text := decoder.decode(part.data):
            yield text
        if part.ended and not part.data:
            break
        if patience.clock() >= deadline:
            raise timed_out(number)
        if not part.data:
            _rest(began, patience)
    if rest := decoder.decode(b"", final=True):
        yield rest


def until_ended(
    poll: Callable[[float], T], ended: Callable[[T], bool], *, patience: Patience
) -> T | None:
    """Return the first answer of ``poll(seconds)`` that has ``ended``; None if the time is up."""
    deadline = patience.deadline()
    steady = _Steady(patience)
    while True:
        began = patience.clock()
        answer = steady(partial(poll, _poll(deadline, patience)))
        if ended(answer):
            return answer
        if patience.clock() >= deadline:
            return None
        _rest(began, patience)


def _rest(began: float, patience: Patience) -> None:
    """Pause after an answer that came at once: a daemon that is about to end lets nobody wait."""
    if patience.clock() - began < PAUSE:
        patience.sleep(PAUSE)


class _Steady:
    """Calls the daemon, and tries again while one that answered before is away within the grace."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._answered = False

    def __call__(self, call: Callable[[], T]) -> T:
        deadline = self._patience.clock() + (self._patience.grace if self._answered else 0.0)
        while True:
            try:
                answer = call()
            except DaemonAwayError:
                if self._patience.clock() >= deadline:
                    raise
                self._patience.sleep(PAUSE)
            else:
                self._answered = True
                return answer


def timed_out(number: int) -> WaitTimedOutError:
    """Return the error of a wait that was shorter than the job."""
    return WaitTimedOutError(
        f"job {number} had not ended when the time was up; it goes on",
        remedy=f"studioq wait {number}",
    )


def _poll(deadline: float, patience: Patience) -> float:
    return max(0.0, min(POLL, deadline - patience.clock()))
