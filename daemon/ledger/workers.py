"""What the workers say of themselves: alive, and in which state their engine is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from daemon.ledger.tables import WorkerRow

# How ``workers.engine.gpu_lock`` begins what it says of the holder, and what helps.
GPU_HELD = "the GPU is held by"
LETS_GO = (
    "it lets go when that home's daemon is ended (studioq daemon stop, with STUDIOQ_HOME set to it)"
)


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


def what_engine_waits_for(session: Session) -> str | None:
    """Return in words why the engine has not begun, and what to do; None where it waits not.

    It waits while a process outside this home holds the machine's GPU lock: the engine of another
    home keeps it also while that one has no jobs.
    """
    worker = latest_worker(session)
    if worker is None or worker.ended_at is not None or worker.engine.get("state") != "waiting":
        return None
    reason = str(worker.engine.get("reason") or "the engine waits for the GPU")
    return f"{reason}; {LETS_GO}" if reason.startswith(GPU_HELD) else reason


def latest_worker(session: Session) -> WorkerRow | None:
    """Return the worker that reported last."""
    return session.scalar(select(WorkerRow).order_by(WorkerRow.started_at.desc()).limit(1))
