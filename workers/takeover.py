"""What a new worker does with the attempts of its dead predecessors.

The rule this module protects: death is confirmed, not guessed. It is called by the holder of the
home's worker lock, so the old worker is dead, and only once the new engine holds the GPU lock, so
the old engine is dead too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon.errors import StaleAttemptError
from daemon.ledger import attempts
from daemon.ledger.attempts import Ending
from daemon.ledger.states import AttemptState
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Attempt, WorkerRow

log = logging.getLogger(__name__)


def end_abandoned(ledger: Ledger, *, worker: str, now: Callable[[], float]) -> int:
    """End every live attempt of other workers as interrupted; return how many there were."""
    with ledger.reading() as session:
        abandoned = _abandoned(session, worker)
    for fence, ending in abandoned:
        try:
            with ledger.writing() as session:
                state = attempts.end(session, fence, ending, now=now())
        except StaleAttemptError:
            continue
        log.warning("action=attempt_abandoned fence=%d job_state=%s", fence, state)
    return len(abandoned)


def _abandoned(session: Session, worker: str) -> list[tuple[int, Ending]]:
    rows = session.execute(
        select(Attempt, WorkerRow.seen_at)
        .outerjoin(WorkerRow, WorkerRow.name == Attempt.worker)
        .where(Attempt.state == AttemptState.RUNNING, Attempt.worker != worker)
        .order_by(Attempt.id)
    )
    return [(attempt.id, _ending(attempt, seen_at)) for attempt, seen_at in rows]


def _ending(attempt: Attempt, seen_at: float | None) -> Ending:
    """Return the ending; the attempt is charged up to its worker's last report."""
    seconds = 0.0 if seen_at is None else max(0.0, seen_at - attempt.started_at)
    return Ending(
        state=AttemptState.INTERRUPTED,
        reason=f"its worker {attempt.worker} died",
        gpu_seconds=seconds,
    )
