"""A migrated ledger, a home's paths, and claimed jobs, without an engine or Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Claim
from daemon.ledger.jobs import NewJob
from daemon.ledger.migrate import open_ledger
from daemon.ledger.store import Ledger
from daemon.ledger.users import ensure_user
from daemon.locate import Paths
from workers.attempts import LiveAttempt

NOW = 1_000_000.0


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A home with its folders made."""
    made = Paths(home=tmp_path / "home", runtime=tmp_path / "run")
    for folder in (made.home, made.blobs, made.jobs, made.models, made.logs, made.locks):
        folder.mkdir()
    return made


@pytest.fixture
def ledger(paths: Paths) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = open_ledger(paths.ledger)
    yield opened
    opened.close()


@pytest.fixture
def claim(ledger: Ledger) -> Callable[..., Claim]:
    """Submit a job, of user ``uid`` and a noop unless told otherwise, and claim it."""

    def _claim(worker: str = "w1", *, uid: int = 501, **options: Any) -> Claim:
        fields: dict[str, Any] = {"kind": "noop", "spec": {"seed": 1}, **options}
        with ledger.writing() as session:
            user = ensure_user(session, uid=uid, name=f"user{uid}", now=NOW)
            new = NewJob(user_id=user.id, **fields)
            number = jobs.submit(session, new, actor="ada", now=NOW).id
            claimed = attempts.claim(session, number, worker=worker, device="cpu", now=NOW)
        assert claimed is not None
        return claimed

    return _claim


@pytest.fixture
def attempt(claim: Callable[..., Claim], paths: Paths) -> LiveAttempt:
    """A live attempt with its folder."""
    claimed = claim()
    folder = paths.attempt(claimed.job_id, claimed.number)
    folder.mkdir(parents=True)
    return LiveAttempt(claim=claimed, folder=folder, started=0.0)
