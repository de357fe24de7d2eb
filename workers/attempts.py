"""The attempts that this worker has handed to its engine, and why it has asked them to end.

The rule this module protects: an attempt is in the table from before its ``Start`` is sent until
its ending is in the ledger. A stronger reason to end replaces a weaker one, never the other way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from daemon.errors import StudioqError
from daemon.ledger.attempts import Claim, Ending


class Cause(IntEnum):
    """Why the worker wants an attempt to end; a higher one is stronger."""

    STOP = 1
    TIME_LIMIT = 2
    CANCEL = 3
    FAULT = 4
    FENCED = 5


@dataclass(kw_only=True, slots=True)
class LiveAttempt:
    """One attempt in the engine.

    ``started`` and ``kill_at`` are readings of the monotonic clock: when it was handed over, and
    when the engine is killed if it has not ended. ``error`` is a fault on the worker's side, such
    as a full disk. ``ending`` is set once it is over and stays to be written.
    """

    claim: Claim
    folder: Path
    started: float
    cause: Cause | None = None
    error: StudioqError | None = None
    kill_at: float | None = None
    finishing: bool = False
    ending: Ending | None = None

    @property
    def fence(self) -> int:
        """The attempt's fencing number."""
        return self.claim.fence

    @property
    def fenced(self) -> bool:
        """Whether the ledger takes nothing more from this attempt."""
        return self.cause is Cause.FENCED

    def running_seconds(self, clock: float) -> float:
        """Return how long the attempt has run, seconds."""
        return max(0.0, clock - self.started)

    def overran(self, clock: float) -> bool:
        """Return whether the job has used up its time limit, earlier attempts included."""
        limit = self.claim.time_limit_seconds
        return limit is not None and self.claim.spent_seconds + self.running_seconds(clock) > limit

    def give_reason(self, cause: Cause, kill_at: float) -> bool:
        """Note why it is to end, and by when; False if there was as strong a reason before."""
        if self.cause is not None and self.cause >= cause:
            return False
        self.cause = cause
        self.kill_at = kill_at if self.kill_at is None else min(kill_at, self.kill_at)
        return True


@dataclass(slots=True)
class AttemptTable:
    """Live attempts by fencing number; the worker runs one at a time now, the table any number."""

    _live: dict[int, LiveAttempt] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveAttempt]:
        return iter(tuple(self._live.values()))

    def add(self, attempt: LiveAttempt) -> None:
        """Put an attempt in."""
        self._live[attempt.fence] = attempt

    def remove(self, attempt: LiveAttempt) -> None:
        """Take an attempt out."""
        self._live.pop(attempt.fence, None)

    def get(self, fence: int) -> LiveAttempt | None:
        """Return the attempt, None if it is over; late messages name such ones."""
        return self._live.get(fence)

    def running(self) -> list[LiveAttempt]:
        """Return those that have not ended."""
        return [attempt for attempt in self if attempt.ending is None]

    def ended(self) -> list[LiveAttempt]:
        """Return those whose ending is still to be written."""
        return [attempt for attempt in self if attempt.ending is not None]
