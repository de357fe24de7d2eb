"""Lock files that name a home's live processes: pid, start and version.

The rule this module protects: a recorded process is believed to live only if pid and start both
match, so a number that was given away is never mistaken for it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from daemon import __version__
from daemon.errors import ConflictError
from daemon.processes import is_alive, process_started


@dataclass(frozen=True, kw_only=True)
class Record:
    """A process as it was when it was recorded; ``started`` is ``processes.process_started``.

    The version is empty where the process did not say it.
    """

    pid: int
    started: float
    version: str

    @classmethod
    def of(cls, pid: int, version: str = __version__) -> Record | None:
        """Return the record of a live process, None if there is none."""
        started = process_started(pid)
        return None if started is None else cls(pid=pid, started=started, version=version)

    def lives(self) -> bool:
        """Return whether this very process still runs."""
        return is_alive(self.pid, self.started)


def read_record(path: Path) -> Record | None:
    """Return what the file says, None if there is no file or it says nothing useful."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Record(
            pid=int(content["pid"]),
            started=float(content["started"]),
            version=str(content.get("version", "")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Write the file at once, so that no reader sees half of it."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record)), encoding="utf-8")
    fresh.replace(path)


class HomeTakenError(ConflictError):
    """Another daemon already serves this home."""

    code = "home_taken"


class HomeLock:
    """One daemon per home: a lock that the system takes back should the process die.

    Raises:
        HomeTakenError: another daemon holds it; says which.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = read_record(path)
            self._file.close()
            raise _taken(path, holder) from None
        self._name_holder()

    def _name_holder(self) -> None:
        record = Record.of(os.getpid())
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(asdict(record)) if record else "")
        self._file.flush()

    def release(self) -> None:
        """Give the home back."""
        self._file.close()


def _taken(path: Path, holder: Record | None) -> HomeTakenError:
    who = f"process {holder.pid} (studioq {holder.version})" if holder else "another process"
    return HomeTakenError(
        f"{who} is already the daemon of {path.parent.parent}",
        remedy="studioq daemon status; studioq daemon stop ends it",
    )
