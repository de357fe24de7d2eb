"""Which queued job runs next: priority, then fair share, then age, with a bonus for a warm model.

Between users of one priority the one with the least decayed GPU time goes first. A job whose model
is already loaded is ranked as if its user had used ``WARM_MODEL_BONUS`` seconds less, because that
is about what loading costs everybody; the bonus fades while the oldest job of that priority waits,
so that a stream of jobs for one model can delay the others only for a bounded time.

Only the oldest job of each user, priority and model is looked at: an index holds them, and 10,000
queued jobs cost no more than ten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from daemon import defaults
from daemon.ledger.states import JobState
from daemon.ledger.tables import Job
from daemon.ledger.users import usage_by_user


@dataclass(frozen=True, kw_only=True)
class Head:
    """The oldest queued job of one user, priority and model."""

    job_id: int
    user_id: int
    priority: int
    model: str | None
    queued_at: float


# Built once, and run without the ORM: this is asked for every job.
_JOBS = cast("Table", Job.__table__)
_OLDEST = (
    select(func.min(_JOBS.c.id))
    .where(_JOBS.c.state == JobState.QUEUED)
    .group_by(_JOBS.c.user_id, _JOBS.c.priority, _JOBS.c.model)
)
_HEADS = (
    select(_JOBS.c.id, _JOBS.c.user_id, _JOBS.c.priority, _JOBS.c.model, _JOBS.c.queued_at)
    .where(_JOBS.c.id.in_(_OLDEST))
    .order_by(_JOBS.c.id)
)


def queue_heads(session: Session) -> list[Head]:
    """Return the candidates, oldest first."""
    session.flush()
    return [
        Head(job_id=job, user_id=user, priority=priority, model=model, queued_at=at or 0.0)
        for job, user, priority, model, at in session.connection().execute(_HEADS)
    ]


def rank(
    heads: Collection[Head], usage: Mapping[int, float], warm: Collection[str], now: float
) -> list[Head]:
    """Return the candidates, the next to run first."""

    def key(head: Head) -> tuple[int, float, int]:
        bonus = _warm_bonus(heads, head.priority, now) if head.model in warm else 0.0
        return (-head.priority, usage.get(head.user_id, 0.0) - bonus, head.job_id)

    return sorted(heads, key=key)


def _warm_bonus(heads: Collection[Head], priority: int, now: float) -> float:
    """Return the bonus in GPU-seconds: full when nobody waits, none after the fading time."""
    oldest = min(head.queued_at for head in heads if head.priority == priority)
    left = 1.0 - max(0.0, now - oldest) / defaults.WARM_BONUS_FADES
    return defaults.WARM_MODEL_BONUS * max(0.0, left)


def choose(session: Session, *, warm: Collection[str], now: float) -> int | None:
    """Return the number of the job to run next, or None if nothing is queued."""
    heads = queue_heads(session)
    if len(heads) <= 1:
        return heads[0].job_id if heads else None
    return rank(heads, usage_by_user(session, now), warm, now)[0].job_id
