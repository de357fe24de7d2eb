"""One process that the daemon keeps alive and that may outlive it.

The rule this module protects: a child is started only when the recorded one is known to be dead,
and signalled only while pid and start match. Its exit status does not matter: whatever ended, ends
too early unless the daemon has asked for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.logs import note
from daemon.processes import kill_if_same
from daemon.supervisor.backoff import Backoff
from daemon.supervisor.records import Record, read_record, write_record

log = logging.getLogger(__name__)

# Bytes of a child's output file after which it is set aside at the next start.
_MAX_OUTPUT = 8 * 2**20
_LOOK_EVERY = 0.05

# Seconds that the system may take to clear away a process that has ended.
_EXIT_TAKES = 1.0

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to start and where its traces go; ``command`` is asked when it is needed.

    ``own_record`` is a file in which the process itself says who it is, for one whose daemon died
    before it could record it.
    """

    name: str
    command: Callable[[], Sequence[str]]
    output: Path
    record: Path
    environment: Mapping[str, str]
    own_record: Path | None = None


class Child:
    """Keeps the process of ``plan`` alive. For one thread."""

    def __init__(self, plan: Plan, *, clock: Clock = time.monotonic) -> None:
        self._plan = plan
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._known: Record | None = None
        self._stopping = False
        self.backoff = Backoff()

    def living(self) -> Record | None:
        """Return the record of the live process; notices its end."""
        self._reap()
        record = self._recorded()
        if record is None and self._known is not None:
            self._await_exit()
            self._note_end()
        elif record is not None and record != self._known:
            note(log, "adopted", child=self._plan.name, pid=record.pid)
        self._known = record
        return record

    def _recorded(self) -> Record | None:
        """Return the first record of a process that lives."""
        files = [file for file in (self._plan.record, self._plan.own_record) if file is not None]
        records = (read_record(file) for file in files)
        return next((record for record in records if record is not None and record.lives()), None)

    def adopt(self, pid: int) -> None:
        """Record a process that was found alive without a record."""
        record = Record.of(pid)
        if record is not None:
            write_record(self._plan.record, record)

    def keep(self) -> Record | None:
        """Return the live process, started now if there was none and the delay has passed."""
        record = self.living()
        if record is None and self.backoff.may_start(self._clock()):
            record = self._start()
        return record

    def _start(self) -> Record | None:
        now = self._clock()
        self.backoff.start(now)
        try:
            self._process = self._launch()
        except OSError as error:
            note(log, "start_failed", logging.ERROR, child=self._plan.name, error=error)
            self.backoff.end(now)
            return None
        record = Record.of(self._process.pid)
        if record is not None:
            write_record(self._plan.record, record)
            self._known = record
        note(log, "started", child=self._plan.name, pid=self._process.pid)
        return record

    def _launch(self) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, which no terminal's signals reach."""
        _set_aside(self._plan.output)
        with self._plan.output.open("ab") as output:
            return subprocess.Popen(
                list(self._plan.command()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **self._plan.environment},
            )

    def _reap(self) -> None:
        """Collect the exit status of a child of our own, if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            status = self._process.returncode
            note(log, "exited", self._level, child=self._plan.name, status=status)
            self._process = None

    def _await_exit(self) -> None:
        """Wait for the last threads of a child of our own whose first one has ended."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_TAKES)
            self._reap()

    def _note_end(self) -> None:
        self.backoff.end(self._clock())
        note(log, "ended", self._level, child=self._plan.name)

    @property
    def _level(self) -> int:
        """How loudly the log speaks of an end: one that was asked for is no surprise."""
        return logging.INFO if self._stopping else logging.WARNING

    def signal(self, number: int) -> bool:
        """Signal the live process; return whether there was one."""
        record = self.living()
        return record is not None and kill_if_same(record.pid, record.started, number)

    def stop(self, *, grace: float) -> None:
        """End the process in good order; kill it if it is still there after ``grace`` seconds."""
        note(log, "stopping", child=self._plan.name)
        self._stopping = True
        self.signal(signal.SIGTERM)
        if not self._gone_within(grace):
            note(log, "killing", logging.WARNING, child=self._plan.name, after_seconds=grace)
            self.signal(signal.SIGKILL)
            self._gone_within(grace)
        self._stopping = False
        self.backoff = Backoff()

    def _gone_within(self, seconds: float) -> bool:
        deadline = self._clock() + seconds
        while self.living() is not None:
            if self._clock() >= deadline:
                return False
            time.sleep(_LOOK_EVERY)
        return True

    def let_go(self) -> None:
        """Leave the process to itself: it goes on, and the next daemon adopts it."""
        if self._process is not None:
            self._process.returncode = 0  # no warning about a child that is still alive
            self._process = None


def _set_aside(output: Path) -> None:
    """Give a child's long output file another name before it grows further."""
    try:
        if output.stat().st_size > _MAX_OUTPUT:
            output.replace(output.with_suffix(".log.1"))
    except FileNotFoundError:
        pass
