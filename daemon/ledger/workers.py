"""What the workers say of themselves: alive, and in which state their engine is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from daemon.ledger.tables import WorkerRow


def report_worker(
    session: Session,
    *,
    name: str,
    pid: int,
    started_at: float,
    engine: Mapping[str, Any],
    now: float,
) -> None:
    """Record that the worker lives and what its engine is doing."""
    session.merge(
        WorkerRow(name=name, pid=pid, started_at=started_at, seen_at=now, engine=dict(engine))
    )
    session.flush()


def end_worker(session: Session, name: str, *, now: float) -> None:
    """Record that the worker has ended in good order."""
    session.execute(update(WorkerRow).where(WorkerRow.name == name).values(ended_at=now))


def latest_worker(session: Session) -> WorkerRow | None:
    """Return the worker that reported last."""
    return session.scalar(select(WorkerRow).order_by(WorkerRow.started_at.desc()).limit(1))
