"""One thread that keeps Redis and the worker alive, does the regular duties, and ends everything.

The rule this module protects: processes are started, signalled and awaited here alone, so that no
two threads can start the same one. Asleep it costs one look every ``SUPERVISE_EVERY`` seconds; the
death of a child wakes it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from daemon import __version__, defaults
from daemon.config import Config
from daemon.ledger.attempts import live_attempts
from daemon.ledger.revision import is_draining, set_draining
from daemon.ledger.store import Ledger
from daemon.ledger.writer import Writer
from daemon.locate import Paths
from daemon.logs import note
from daemon.supervisor.child import Child, Plan
from daemon.supervisor.housekeeping import Housekeeping
from daemon.supervisor.redis_server import RedisServer, ServerState

log = logging.getLogger(__name__)

# Seconds between two looks while something is starting or ending, seconds the worker waits for
# Redis at the start, and seconds Redis has to write its file to the end.
BUSY_EVERY = 0.1
WORKER_WAITS = 2.0
REDIS_GRACE = 15.0

# Seconds the worker has to end: its own time for a checkpoint, and then to kill what is deaf to it.
WORKER_GRACE = defaults.STOP_GRACE + defaults.CANCEL_GRACE


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """What is to end with the daemon, and whether the running job may end first."""

    worker: bool
    drain: bool


def worker_command() -> Sequence[str]:
    """Return the command of the worker that belongs to this interpreter."""
    script = Path(sys.executable).parent / "studioq-worker"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from workers.main import main; main()"]


def worker_child(paths: Paths) -> Child:
    """Return the keeper of a home's worker."""
    return Child(
        Plan(
            name="worker",
            command=worker_command,
            output=paths.logs / "worker.log",
            record=paths.locks / "worker.json",
            own_record=paths.locks / "worker.lock",
            environment={
                "STUDIOQ_HOME": str(paths.home),
                "STUDIOQ_RUNTIME": str(paths.runtime),
            },
        )
    )


class Supervisor:
    """Keeps the processes of a home. ``ended`` is called, once, when the daemon shall end."""

    def __init__(
        self,
        paths: Paths,
        config: Config,
        *,
        ledger: Ledger,
        writer: Writer,
        duties: Housekeeping,
        ended: Callable[[], object],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._writer = writer
        self._duties = duties
        self._ended = ended
        self._redis = RedisServer(paths) if config.redis_url is None else None
        self._url = _public(config.redis_address(paths))
        self._worker = worker_child(paths)
        self._worker_pid: int | None = None
        self._began = time.monotonic()
        self._shutdown: Shutdown | None = None
        self._was_draining: bool | None = None
        self._leave = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin to look after the processes."""
        self._thread.start()

    def wake(self) -> None:
        """Look now; may be called from a signal's handler."""
        self._wake.set()

    def begin_shutdown(self, *, worker: bool, drain: bool, by: str) -> None:
        """Begin to end the daemon, and the worker and Redis if ``worker``.

        ``by``: the signal or the person that asked for it, for the log.
        """
        note(log, "shutdown_begun", by=by, worker=worker, drain=drain)
        self._shutdown = Shutdown(worker=worker, drain=drain)
        self.wake()

    def close(self) -> None:
        """End the thread; the processes go on."""
        self._leave = True
        self.wake()
        self._thread.join()
        self._duties.close()
        self._worker.let_go()
        if self._redis is not None:
            self._redis.child.let_go()

    def status(self) -> dict[str, Any]:
        """Return the state of Redis and the worker as the last look saw it."""
        worker = "running" if self._worker_pid is not None else "stopped"
        return {
            "redis": {
                "state": str(self._redis.state) if self._redis is not None else "external",
                "pid": self._redis.pid if self._redis is not None else None,
                "url": self._url,
                "managed": self._redis is not None,
            },
            "worker": {
                "state": "stopping" if self._shutdown is not None else worker,
                "pid": self._worker_pid,
            },
        }

    def _run(self) -> None:
        while not self._leave:
            try:
                busy = self._tick()
            except Exception:
                log.exception("action=supervise_failed")
                busy = False
            self._wake.wait(BUSY_EVERY if busy else defaults.SUPERVISE_EVERY)
            self._wake.clear()

    def _tick(self) -> bool:
        """Look at everything once; return whether to look again soon."""
        if self._shutdown is not None and self._may_end(self._shutdown):
            self._end(self._shutdown)
            return False
        redis_ready = self._keep_redis()
        settled = self._keep_worker(redis_ready=redis_ready) and redis_ready
        self._duties.tick(time.monotonic(), redis_ready=redis_ready)
        return not settled or self._shutdown is not None

    def _keep_redis(self) -> bool:
        """Return whether Redis is as it should be."""
        if self._redis is None:
            return True
        before = self._redis.state
        self._redis.keep()
        ready = self._redis.state == ServerState.READY
        if ready and before != ServerState.READY:
            self._duties.hurry()
        return ready

    def _keep_worker(self, *, redis_ready: bool) -> bool:
        """Return whether the worker is as it should be."""
        if not redis_ready and time.monotonic() - self._began < WORKER_WAITS:
            return False
        record = self._worker.keep()
        self._worker_pid = record.pid if record is not None else None
        if record is not None and record.version not in {"", __version__}:
            self._replace_worker(record.version)
        return record is not None

    def _replace_worker(self, version: str) -> None:
        """End a worker of another version while it has nothing to do; the next look starts ours."""
        if not self._is_working():
            note(log, "worker_outdated", version=version, ours=__version__)
            self._worker.stop(grace=WORKER_GRACE)

    def _is_working(self) -> bool:
        with self._ledger.reading() as session:
            return bool(live_attempts(session))

    def _may_end(self, shutdown: Shutdown) -> bool:
        """Return whether everything that shall end may do so now."""
        if not (shutdown.worker and shutdown.drain):
            return True
        if self._was_draining is None:
            with self._ledger.reading() as session:
                self._was_draining = is_draining(session)
            self._set_draining(True)
        return not self._is_working()

    def _set_draining(self, draining: bool) -> None:
        self._writer.write(lambda session: set_draining(session, draining))

    def _end(self, shutdown: Shutdown) -> None:
        """End what shall end, the worker before Redis, and then the daemon."""
        try:
            if shutdown.worker:
                self._worker.stop(grace=WORKER_GRACE)
                self._worker_pid = None
                if self._redis is not None:
                    self._redis.child.stop(grace=REDIS_GRACE)
            if self._was_draining is False:
                self._set_draining(False)
        finally:
            self._leave = True
            self._ended()


def _public(url: str) -> str:
    """Return the address without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    place = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{place}"))
