"""One worker for each home, and what a new one does with a dead one's attempts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.errors import ConflictError
from daemon.ledger import jobs
from daemon.ledger.attempts import Claim
from daemon.ledger.states import JobState
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Attempt, User
from daemon.ledger.workers import report_worker
from workers.lock import WorkerLock, read_holder
from workers.takeover import end_abandoned

NOW = 1_000_000.0
HOLD = """
import sys
from pathlib import Path
from workers.lock import WorkerLock
lock = WorkerLock.acquire(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_names_its_holder_and_its_death_releases_it(tmp_path: Path) -> None:
    path = tmp_path / "worker.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConflictError, match=f"process {holder.pid}"):
            WorkerLock.acquire(path)
        found = read_holder(path)
        assert found is not None
        assert found.pid == holder.pid
        holder.kill()
    assert read_holder(path) is None
    lock = WorkerLock.acquire(path)
    own = read_holder(path)
    assert own is not None
    assert own.pid == os.getpid()
    lock.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b'{"pid": 1}'])
def test_a_lock_file_of_nobody_is_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "worker.lock").write_bytes(content)
    assert read_holder(tmp_path / "worker.lock") is None
    assert read_holder(tmp_path / "absent") is None


def test_abandoned_attempts_are_interrupted_and_charged(
    ledger: Ledger, claim: Callable[..., Claim]
) -> None:
    dead, unknown, own = claim("dead"), claim("unknown"), claim("new")
    with ledger.writing() as session:
        report_worker(session, name="dead", pid=1, started_at=NOW, engine={}, now=NOW + 30)
    assert end_abandoned(ledger, worker="new", now=lambda: NOW + 500) == 2
    with ledger.reading() as session:
        states = [jobs.get_job(session, job.job_id).state for job in (dead, unknown, own)]
        assert states == [JobState.QUEUED, JobState.QUEUED, JobState.RUNNING]
        attempt = session.get_one(Attempt, dead.fence)
        assert attempt.gpu_seconds == 30
        assert "worker dead died" in str(attempt.reason)
        assert session.get_one(Attempt, unknown.fence).gpu_seconds == 0
        assert session.get_one(User, dead.user_id).gpu_seconds == pytest.approx(30)
    assert end_abandoned(ledger, worker="new", now=lambda: NOW) == 0
