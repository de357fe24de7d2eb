"""One worker for each home: a lock that its holder's death releases.

The rule this module protects: who holds the lock is the home's only worker, so every attempt that
another one left behind belongs to a process that is dead. The file says who holds it (``pid`` and
``started`` of ``daemon.processes`` as JSON), for the daemon that adopts or ends it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import ConflictError
from daemon.processes import is_alive, process_started


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds, or last held, a lock."""

    pid: int
    started: float


@dataclass(frozen=True, kw_only=True)
class WorkerLock:
    """The held lock; closing it, or the end of the process, lets it go."""

    descriptor: int

    @classmethod
    def acquire(cls, path: Path) -> WorkerLock:
        """Take the lock for this process.

        Raises:
            ConflictError: a worker of this home is running; the message names it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _refusal(path) from None
        holder = {"pid": os.getpid(), "started": process_started(os.getpid())}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
        return cls(descriptor=descriptor)

    def release(self) -> None:
        """Let the lock go; the file stays, for a removed one would lock nobody out."""
        os.close(self.descriptor)


def read_holder(path: Path) -> Holder | None:
    """Return who holds the lock, None if nobody that still lives does."""
    try:
        content = json.loads(path.read_bytes())
        holder = Holder(pid=int(content["pid"]), started=float(content["started"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return holder if is_alive(holder.pid, holder.started) else None


def _refusal(path: Path) -> ConflictError:
    holder = read_holder(path)
    who = "another process" if holder is None else f"process {holder.pid}"
    return ConflictError(
        f"a worker of this home is already running: {who} holds {path}",
        remedy="studioq daemon stop ends it; one worker is all that a GPU needs",
    )
