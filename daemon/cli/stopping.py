"""Asking a daemon to end, and seeing that it and its processes have ended.

The rule it protects: "stopped" is said of processes that are known to be gone, and nothing is
killed from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import defaults
from daemon.errors import ConflictError
from daemon.processes import is_alive, process_started

if TYPE_CHECKING:
    from daemon.client import Client

_PAUSE = 0.05


@dataclass(frozen=True, kw_only=True)
class Running:
    """A process that is to end: what it is, its number, and when it started."""

    part: str
    pid: int
    started: float

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return is_alive(self.pid, self.started)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How long an end may take, by which clock; None: as long as the running job takes."""

    seconds: float | None = 2 * defaults.STOP_GRACE
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def stop_daemon(
    client: Client, *, worker: bool, drain: bool = False, limit: Limit | None = None
) -> None:
    """End the daemon and, with ``worker``, all it has started; return when they are gone.

    Raises:
        DaemonAwayError: there is none.
        ConflictError: something still runs when the limit has passed.
    """
    parts = list(_parts(client.status(), worker=worker))
    client.shutdown(worker=worker, drain=drain)
    client.close()
    _wait_until_gone(parts, limit or Limit(seconds=None if drain else Limit.seconds))


def _parts(status: Any, *, worker: bool) -> Iterator[Running]:
    """Yield the processes that will end."""
    pids = {"daemon": status["pid"]}
    if worker:
        pids |= {"worker": status["worker"]["pid"], "engine": status["engine"]["pid"]}
        if status["redis"]["managed"]:
            pids["redis"] = status["redis"]["pid"]
    for part, pid in pids.items():
        started = process_started(pid) if pid else None
        if started is not None:
            yield Running(part=part, pid=pid, started=started)


def _wait_until_gone(parts: list[Running], limit: Limit) -> None:
    begin = limit.clock()
    while left := [part for part in parts if part.alive]:
        if limit.seconds is not None and limit.clock() - begin > limit.seconds:
            names = ", ".join(f"{part.part} (pid {part.pid})" for part in left)
            raise ConflictError(
                f"{names} has not ended after {limit.seconds:.0f} s",
                remedy="the log in the home's logs folder says what it waits for",
            )
        limit.sleep(_PAUSE)
