"""A real, migrated ledger in a temporary folder, and short ways to put something into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.ledger import jobs
from daemon.ledger.jobs import NewJob
from daemon.ledger.migrate import open_ledger
from daemon.ledger.store import Ledger
from daemon.ledger.users import ensure_user

NOW = 1_000_000.0
Submit = Callable[..., int]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def submit(ledger: Ledger) -> Submit:
    """Submit a job of user ``uid``, a noop unless ``kind`` says otherwise; return its number."""

    def _submit(uid: int = 501, *, kind: str = "noop", now: float = NOW, **options: object) -> int:
        with ledger.writing() as session:
            user = ensure_user(session, uid=uid, name=f"user{uid}", now=now)
            new = NewJob(user_id=user.id, kind=kind, spec={"seed": 1}, **options)  # type: ignore[arg-type]
            return jobs.submit(session, new, actor=user.name, now=now).id

    return _submit
