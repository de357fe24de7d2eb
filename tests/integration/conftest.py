"""A home with a real ledger and a real Redis, and worker processes that run in it.

The rule this file protects: only processes that a test started are ended, each by its handle; an
engine ends with its worker.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from sqlalchemy import select

from daemon.ledger import jobs
from daemon.ledger.jobs import NewJob
from daemon.ledger.migrate import open_ledger
from daemon.ledger.revision import ledger_id
from daemon.ledger.tables import Attempt, Job, WorkerRow
from daemon.ledger.users import ensure_user
from daemon.locate import Paths
from daemon.queue.connection import connect
from daemon.queue.dispatch import push
from daemon.specs import load_spec

PATIENCE = 90.0
WORKER = "import sys; from workers.main import main; sys.exit(main())"


class Server(Protocol):
    """What a home needs of the Redis fixture."""

    url: str


class Home:
    """One studioq home in a short temporary folder, its Redis, and its workers."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server
        self.paths = Paths(home=folder / "home", runtime=folder / "run")
        self.paths.create()
        self.paths.config.write_text(f'redis_url = "{server.url}"\n', encoding="utf-8")
        self.ledger = open_ledger(self.paths.ledger)
        self.redis = connect(server.url)
        with self.ledger.writing() as session:
            self.ledger_id = ledger_id(session)
            self.user_id = ensure_user(session, uid=501, name="ada", now=time.time()).id
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name this home."""
        return {
            "STUDIOQ_HOME": str(self.paths.home),
            "STUDIOQ_RUNTIME": str(self.paths.runtime),
            "STUDIOQ_LOCKS": str(self.folder / "locks"),
            "STUDIOQ_TEST_KINDS": "1",
        }

    @property
    def narration(self) -> Path:
        """What the workers have written to stderr."""
        return self.folder / "narration.txt"

    def submit(self, *, announce: bool = True, options: Any = None, **spec: Any) -> int:
        """Queue a noop job of this ``spec``; ``options`` are those of ``NewJob``."""
        new = NewJob(
            user_id=self.user_id,
            kind="noop",
            spec=load_spec("noop", {"seed": 1, **spec}).model_dump(mode="json"),
            model=spec.get("model"),
            **(options or {}),
        )
        with self.ledger.writing() as session:
            job = jobs.submit(session, new, actor="ada", now=time.time())
            number, dispatch = job.id, job.dispatch
        if announce:
            push(self.redis, self.ledger_id, [(number, dispatch)])
        return number

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker process, without waiting for it."""
        with self.narration.open("ab") as narration:
            worker = subprocess.Popen(
                [sys.executable, "-P", "-c", WORKER],
                env={**os.environ, **self.environment},
                stderr=narration,
            )
        self.workers.append(worker)
        return worker

    def job(self, number: int) -> Job:
        """Return the job as it is now."""
        with self.ledger.reading() as session:
            return jobs.get_job(session, number)

    def attempts(self, number: int) -> list[Attempt]:
        """Return the job's attempts, the first one first."""
        with self.ledger.reading() as session:
            found = select(Attempt).where(Attempt.job_id == number).order_by(Attempt.number)
            return list(session.scalars(found))

    def worker_rows(self) -> list[WorkerRow]:
        """Return what the workers have said of themselves."""
        with self.ledger.reading() as session:
            return list(session.scalars(select(WorkerRow).order_by(WorkerRow.started_at)))

    def engine_pid(self) -> int:
        """Return the engine's process number once the newest worker has one that is ready."""
        return int(self.until(self._ready_engine))

    def _ready_engine(self) -> int | None:
        rows = self.worker_rows()
        engine = rows[-1].engine if rows else {}
        return engine["pid"] if engine.get("state") in {"ready", "busy"} else None

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until ``condition`` holds and return what it gave."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, self.describe()
            time.sleep(0.01)
        return found

    def until_state(self, number: int, *states: str) -> Job:
        """Wait until the job is in one of these states."""
        self.until(lambda: self.job(number).state in states)
        return self.job(number)

    def until_step(self, number: int, step: int) -> None:
        """Wait until the running job has come to ``step``."""
        self.until(lambda: self.job(number).progress_done >= step)

    def wish(self, change: Callable[..., Any], number: int) -> None:
        """Cancel or finish a job, as its user does."""
        with self.ledger.writing() as session:
            change(session, number, actor="ada", now=time.time())

    def describe(self) -> str:
        """Return what helps to see why a condition never held."""
        log = self.paths.logs / "worker.log"
        tail = log.read_text(encoding="utf-8")[-3000:] if log.exists() else "no log"
        return f"waited {PATIENCE} s in vain; the worker's log:\n{tail}"

    def close(self) -> None:
        """End the workers that were started here."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.redis.close()
        self.ledger.close()


@pytest.fixture
def home(redis_server: Server) -> Iterator[Home]:
    """An empty home with a running Redis; workers are started by the test."""
    folder = Path(tempfile.mkdtemp(prefix="sqh-"))
    made = Home(folder, redis_server)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)
