"""Questions about one job: everything of it, its files, numbers, history; and use by user.

The rule it protects: a job's artifacts are the newest file of each name, because that is the one
that a name can fetch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from daemon.access import Person
from daemon.errors import NotFoundError
from daemon.ledger import repeats, views
from daemon.ledger.jobs import get_job
from daemon.ledger.queries import LINE, positions
from daemon.ledger.states import AttemptState, JobState
from daemon.ledger.tables import (
    Artifact,
    Attempt,
    Checkpoint,
    Dependency,
    Job,
    JobEvent,
    Metric,
    User,
)
from daemon.ledger.users import usage_by_user
from daemon.ledger.workers import what_engine_waits_for

ARTIFACT = (
    Artifact.name,
    Artifact.kind,
    Artifact.bytes,
    Artifact.sha256,
    Artifact.step,
    Attempt.number.label("attempt"),
)

# The most rows of metrics or history that one answer holds.
MOST_ROWS = 20_000

# The kinds of artifact that must come out the same when a job is repeated.
_REPEATABLE = frozenset({"adapter", "text", "image", "model"})


def show_job(session: Session, number: int, person: Person, *, now: float) -> views.Json:
    """Return everything about a job that ``person`` may read; the spec is its owner's and admins'.

    Raises:
        NotFoundError: there is none with this number.
    """
    job = get_job(session, number)
    line = session.execute(
        select(*LINE).join(User, User.id == Job.user_id).where(Job.id == number)
    ).one()
    queued = [number] if job.state == JobState.QUEUED else []
    shown = views.job_line(
        line,
        person,
        positions(session, queued, now=now).get(number),
        engine_waits=what_engine_waits_for(session) if queued else None,
    )
    own = person.may_change(line.owner_uid)
    return shown | {
        "spec": job.spec if own else {},
        "error": job.error,
        "after": _needs(session, number),
        "share": job.share,
        "begin_at": views.iso(job.begin_at),
        "time_limit_seconds": job.time_limit_seconds,
        "retries_left": job.retries_left,
        "repeats": job.repeats_id,
        "identical": identical(session, job),
        "changed": repeats.changes(session, job),
        "attempts": [views.attempt(row) for row in _attempts(session, number)],
        "artifacts": artifacts(session, number),
        "metrics": last_metrics(session, number),
    }


def _needs(session: Session, number: int) -> list[int]:
    return list(
        session.scalars(
            select(Dependency.needs_id)
            .where(Dependency.job_id == number)
            .order_by(Dependency.needs_id)
        )
    )


def _attempts(session: Session, number: int) -> Sequence[Attempt]:
    return session.scalars(
        select(Attempt).where(Attempt.job_id == number).order_by(Attempt.number)
    ).all()


def live_attempt(session: Session, number: int) -> int | None:
    """Return the number of the job's running attempt, None while there is none."""
    return session.scalar(
        select(Attempt.number).where(
            Attempt.job_id == number, Attempt.state == AttemptState.RUNNING
        )
    )


def artifacts(session: Session, number: int) -> list[views.Json]:
    """Return a job's files by name; of several attempts' files of one name the newest."""
    rows = session.execute(
        select(*ARTIFACT)
        .join(Attempt, Attempt.id == Artifact.attempt_id)
        .where(Artifact.job_id == number)
        .order_by(Artifact.id)
    )
    newest = {row.name: row for row in rows}
    return [views.artifact(row) for row in newest.values()]


def find_artifact(session: Session, number: int, name: str) -> views.Json:
    """Return the job's file of that name.

    Raises:
        NotFoundError: it has none.
    """
    found = session.execute(
        select(*ARTIFACT)
        .join(Attempt, Attempt.id == Artifact.attempt_id)
        .where(Artifact.job_id == number, Artifact.name == name)
        .order_by(Artifact.id.desc())
        .limit(1)
    ).one_or_none()
    if found is None:
        raise NotFoundError(
            f"job {number} has no artifact {name!r}",
            remedy=f"studioq show {number} names its artifacts",
        )
    return views.artifact(found)


def identical(session: Session, job: Job) -> bool | None:
    """Return whether a repeated job made the same files as the first; None if that is unknown."""
    if job.repeats_id is None or job.state != JobState.SUCCEEDED:
        return None
    first, second = _hashes(session, job.repeats_id), _hashes(session, job.id)
    if session.scalar(select(Job.state).where(Job.id == job.repeats_id)) != JobState.SUCCEEDED:
        return None
    return first == second if first or second else None


def _hashes(session: Session, number: int) -> Mapping[str, str]:
    return {
        file["name"]: file["sha256"]
        for file in artifacts(session, number)
        if file["kind"] in _REPEATABLE
    }


def last_metrics(session: Session, number: int) -> dict[str, float]:
    """Return the last value of each of a job's metrics."""
    newest = select(func.max(Metric.id)).where(Metric.job_id == number).group_by(Metric.name)
    rows = session.execute(
        select(Metric.name, Metric.value).where(Metric.id.in_(newest)).order_by(Metric.id)
    )
    return {row.name: row.value for row in rows}


def metrics_after(session: Session, number: int, after: int) -> list[views.Json]:
    """Return the job's metrics whose id is larger than ``after``, at most ``MOST_ROWS``."""
    rows = session.execute(
        select(Metric, Attempt.number)
        .join(Attempt, Attempt.id == Metric.attempt_id)
        .where(Metric.job_id == number, Metric.id > after)
        .order_by(Metric.id)
        .limit(MOST_ROWS)
    )
    return [views.metric(metric, attempt) for metric, attempt in rows]


def events_of(session: Session, number: int) -> list[views.Json]:
    """Return the job's history, oldest first; of a very long one the latest part."""
    rows = session.scalars(
        select(JobEvent)
        .where(JobEvent.job_id == number)
        .order_by(JobEvent.id.desc())
        .limit(MOST_ROWS)
    )
    return [views.event(row) for row in reversed(rows.all())]


def usage(session: Session, *, since: float, now: float) -> list[views.Json]:
    """Return every user's jobs and GPU-seconds since a time, and share of the decayed use, 0 to 1.

    An attempt counts by when it ended.
    """
    used: Mapping[int, Any] = {
        user: (jobs, seconds)
        for user, jobs, seconds in session.execute(
            select(
                Job.user_id,
                func.count(func.distinct(Job.id)),
                func.coalesce(func.sum(Attempt.gpu_seconds), 0.0),
            )
            .join(Attempt, Attempt.job_id == Job.id)
            .where(Attempt.ended_at >= since)
            .group_by(Job.user_id)
        )
    }
    decayed = usage_by_user(session, now)
    whole = sum(decayed.values())
    names = session.execute(select(User.id, User.name).order_by(User.name))
    return [
        {
            "user": name,
            "jobs": used.get(user, (0, 0.0))[0],
            "gpu_seconds": used.get(user, (0, 0.0))[1],
            "share": decayed.get(user, 0.0) / whole if whole > 0 else 0.0,
        }
        for user, name in names
    ]


def checkpoint_steps(session: Session, numbers: Collection[int]) -> dict[int, list[int]]:
    """Return the steps at which each of these jobs has a checkpoint."""
    rows = session.execute(
        select(Checkpoint.job_id, Checkpoint.step)
        .where(Checkpoint.job_id.in_(list(numbers)))
        .order_by(Checkpoint.step)
    )
    steps: dict[int, list[int]] = {number: [] for number in numbers}
    for number, step in rows:
        if step not in steps[number]:
            steps[number].append(step)
    return steps
