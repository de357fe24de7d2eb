"""What the daemon says, as it changes: one thread that asks, and messages to the app.

The rule this module protects: it asks only for what changed since the last answer, and while the
daemon is away it tries again by itself, says so once, and goes on where it stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.errors import DaemonAwayError, StudioqError
from tui.pane import Connect

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.client.answers import JobLine, Status

# Seconds between two looks at the queue; at the processes while a job runs, and while none does.
LOOK, LOOK_UNFOCUSED = 0.5, 2.0
STATUS_BUSY, STATUS_IDLE = 1.0, 5.0

# Seconds before the daemon is tried again: the first time, and at most.
RETRY, RETRY_MOST = 0.25, 4.0

# Jobs of the first answer, which is drawn at once, and of one with the history.
FIRST, HISTORY = 200, 10_000

_LIVE = frozenset({"held", "waiting", "queued", "running", "paused"})


@dataclass(frozen=True, kw_only=True)
class JobsCame:
    """New and changed jobs; ``anew``: they replace all that was known."""

    jobs: list[JobLine]
    anew: bool = False


@dataclass(frozen=True, kw_only=True)
class StatusCame:
    """How the daemon and its processes are."""

    status: Status


@dataclass(frozen=True, kw_only=True)
class DaemonWent:
    """The daemon does not answer; it is tried again."""

    error: StudioqError


@dataclass(frozen=True, kw_only=True)
class DaemonCame:
    """The daemon answers, for the first time or again."""

    again: bool


News = JobsCame | StatusCame | DaemonWent | DaemonCame


class Feed:
    """Asks the daemon until it is closed; ``tell`` is called in its thread.

    ``clock`` counts seconds and never goes back.
    """

    def __init__(
        self,
        connect: Connect,
        tell: Callable[[News], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._tell = tell
        self._clock = clock
        self._wake = threading.Event()
        self._closed = False
        self._look = LOOK
        self._revision: int | None = None
        self._home: str | None = None
        self._states: dict[int, str] = {}
        self._status_due = 0.0
        self._pause = RETRY
        self._away = False
        self._known = False

    def run(self) -> None:
        """Ask until ``close``; for a thread of its own."""
        while not self._closed:
            try:
                with self._connect() as client:
                    self._follow(client)
            except DaemonAwayError as error:
                self._went(error)
            except StudioqError as error:
                self._went(error)
            except OSError as error:
                self._went(DaemonAwayError(f"the daemon cannot be reached: {error}"))

    def close(self) -> None:
        """End soon."""
        self._closed = True
        self._wake.set()

    def hurry(self) -> None:
        """Look now: something was done."""
        self._status_due = 0.0
        self._wake.set()

    def slow_down(self, *, slow: bool) -> None:
        """Look more seldom while another window has the keyboard."""
        self._look = LOOK_UNFOCUSED if slow else LOOK
        self._wake.set()

    def _went(self, error: StudioqError) -> None:
        if not self._away:
            self._away = True
            self._tell(DaemonWent(error=error))
        self._sleep(self._pause)
        self._pause = min(RETRY_MOST, 2 * self._pause)

    def _came(self) -> None:
        self._pause = RETRY
        if self._away or not self._known:
            self._tell(DaemonCame(again=self._known))
        self._away, self._known = False, True

    def _sleep(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _follow(self, client: Client) -> None:
        while not self._closed:
            self._look_at_processes(client)
            self._look_at_jobs(client)
            self._came()
            self._sleep(self._look)

    def _look_at_processes(self, client: Client) -> None:
        now = self._clock()
        if now < self._status_due:
            return
        status = client.status()
        busy = status["jobs"].get("running", 0) > 0
        self._status_due = now + (STATUS_BUSY if busy else STATUS_IDLE)
        if self._home not in (None, status["home"]) or _went_back(self._revision, status):
            self._revision = None
        self._home = status["home"]
        self._tell(StatusCame(status=status))

    def _look_at_jobs(self, client: Client) -> None:
        if self._revision is None:
            self._begin(client)
            return
        answer = client.jobs(everything=True, since=self._revision, limit=1000)
        self._revision = answer["revision"]
        jobs = answer["jobs"]
        if self._moved(jobs):
            # Somebody's place in the queue has changed with it.
            jobs = [*jobs, *client.jobs(limit=1000)["jobs"]]
        if jobs:
            self._tell(JobsCame(jobs=jobs))

    def _begin(self, client: Client) -> None:
        """Ask for what is drawn first, then for the whole history."""
        first = client.jobs(limit=FIRST)
        self._states.clear()
        self._moved(first["jobs"])
        self._tell(JobsCame(jobs=first["jobs"], anew=True))
        self._revision = first["revision"]
        history = client.jobs(everything=True, limit=HISTORY)
        if len(history["jobs"]) > len(first["jobs"]):
            self._moved(history["jobs"])
            self._tell(JobsCame(jobs=history["jobs"]))

    def _moved(self, jobs: list[JobLine]) -> bool:
        """Note the states of jobs; return whether one that is not ended has another now."""
        moved = False
        for job in jobs:
            old = self._states.get(job["id"])
            if old != job["state"]:
                moved = moved or old in _LIVE or job["state"] in _LIVE
                self._states[job["id"]] = job["state"]
        return moved


def _went_back(revision: int | None, status: Status) -> bool:
    """Say whether the ledger is another one than the revision is of."""
    return revision is not None and status["revision"] < revision
