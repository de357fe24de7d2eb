"""The life of an attempt: claimed, reporting, ended.

Everything here is guarded by the fencing number: a write whose attempt is not running any more
raises ``StaleAttemptError`` and changes nothing. A job's outcome is decided in ``end`` and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Table, bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from daemon.errors import StaleAttemptError
from daemon.ledger import jobs
from daemon.ledger.outcomes import job_after
from daemon.ledger.revision import next_revision, touch
from daemon.ledger.states import ENDED, AttemptState, JobState, Wish
from daemon.ledger.tables import Artifact, Attempt, Checkpoint, Job, JobEvent, Metric, User
from daemon.ledger.users import charge


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A job that has just become this worker's: all that is needed to run it."""

    fence: int
    job_id: int
    number: int
    dispatch: int
    user_id: int
    kind: str
    name: str | None
    model: str | None
    spec: Mapping[str, Any]
    time_limit_seconds: float | None
    spent_seconds: float
    started_at: float


@dataclass(frozen=True, kw_only=True)
class File:
    """A finished file of the attempt's folder, synced and hashed."""

    name: str
    kind: str
    bytes: int
    sha256: str
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an attempt ended: its state, why, and what it leaves.

    ``progress`` is (done, total) at the end, if it is not in the ledger yet.
    """

    state: AttemptState
    reason: str | None = None
    error: Mapping[str, Any] | None = None
    gpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    files: Sequence[File] = field(default=())
    progress: tuple[int, int] | None = None


# Kinds whose success leaves no files.
_FILELESS = frozenset({"noop"})

# The statements of the road that every job takes are built once (see daemon.ledger.revision).
_JOBS = cast("Table", Job.__table__)
_ATTEMPTS = cast("Table", Attempt.__table__)
_USERS = cast("Table", User.__table__)
_TAKE = (
    update(_JOBS)
    .where(_JOBS.c.id == bindparam("job"), _JOBS.c.state == JobState.QUEUED)
    .values(
        state=JobState.RUNNING,
        reason=None,
        started_at=func.coalesce(_JOBS.c.started_at, bindparam("now")),
        revision=bindparam("next_revision"),
    )
    .returning(
        _JOBS.c.id,
        _JOBS.c.dispatch,
        _JOBS.c.user_id,
        _JOBS.c.kind,
        _JOBS.c.name,
        _JOBS.c.model,
        _JOBS.c.spec,
        _JOBS.c.time_limit_seconds,
        _JOBS.c.gpu_seconds,
    )
)
_RETRIED = (
    select(JobEvent.detail)
    .where(JobEvent.job_id == bindparam("job"), JobEvent.action == "retried")
    .order_by(JobEvent.id.desc())
    .limit(1)
)
_LAST_NUMBER = select(func.coalesce(func.max(_ATTEMPTS.c.number), 0)).where(
    _ATTEMPTS.c.job_id == bindparam("job")
)
_BEGIN = (
    insert(_ATTEMPTS)
    .values(
        job_id=bindparam("job"),
        number=_LAST_NUMBER.scalar_subquery() + 1,
        state=AttemptState.RUNNING,
        worker=bindparam("by"),
        device=bindparam("on"),
        started_at=bindparam("now"),
        gpu_seconds=0.0,
        facts={},
    )
    .returning(_ATTEMPTS.c.id, _ATTEMPTS.c.number)
)
_WISHES = (
    select(_ATTEMPTS.c.id, _JOBS.c.wish)
    .join(_JOBS, _JOBS.c.id == _ATTEMPTS.c.job_id)
    .where(
        _ATTEMPTS.c.id.in_(bindparam("fences", expanding=True)),
        _ATTEMPTS.c.state == AttemptState.RUNNING,
    )
)
_PROGRESS = (
    update(_JOBS)
    .where(
        _JOBS.c.id
        == select(_ATTEMPTS.c.job_id)
        .where(_ATTEMPTS.c.id == bindparam("fence"), _ATTEMPTS.c.state == AttemptState.RUNNING)
        .scalar_subquery()
    )
    .values(
        progress_done=bindparam("done"),
        progress_total=bindparam("total"),
        eta_seconds=bindparam("eta"),
        revision=bindparam("next_revision"),
    )
)
_ENDING = (
    select(
        _ATTEMPTS.c.job_id,
        _ATTEMPTS.c.worker,
        _JOBS.c.user_id,
        _JOBS.c.kind,
        _JOBS.c.wish,
        _JOBS.c.retries_left,
        _JOBS.c.interruptions,
        _JOBS.c.dispatch,
        _JOBS.c.gpu_seconds,
        _JOBS.c.peak_memory_bytes,
        _USERS.c.gpu_seconds.label("used"),
        _USERS.c.gpu_seconds_at.label("used_at"),
    )
    .join(_JOBS, _JOBS.c.id == _ATTEMPTS.c.job_id)
    .join(_USERS, _USERS.c.id == _JOBS.c.user_id)
    .where(_ATTEMPTS.c.id == bindparam("fence"), _ATTEMPTS.c.state == AttemptState.RUNNING)
)
_CLOSE = (
    update(_ATTEMPTS)
    .where(_ATTEMPTS.c.id == bindparam("fence"))
    .values(
        state=bindparam("end"),
        ended_at=bindparam("now"),
        reason=bindparam("why"),
        gpu_seconds=bindparam("seconds"),
        peak_memory_bytes=bindparam("peak"),
    )
)


def claim(
    session: Session, job_id: int, *, worker: str, device: str | None, now: float
) -> Claim | None:
    """Take a queued job for ``worker``; None if it is not queued any more.

    The compare-and-set on the job and the unique index on live attempts each suffice to keep two
    workers apart; both are there so that a mistake in one does no harm.
    """
    values = {"job": job_id, "now": now, "next_revision": next_revision(session)}
    row = session.connection().execute(_TAKE, values).one_or_none()
    if row is None:
        return None
    fence, number = _begin_attempt(session, job_id, worker=worker, device=device, now=now)
    jobs.record_event(session, job_id, "claimed", actor=worker, now=now, attempt=number)
    return Claim(
        fence=fence,
        job_id=row.id,
        number=number,
        dispatch=row.dispatch,
        user_id=row.user_id,
        kind=row.kind,
        name=row.name,
        model=row.model,
        spec=row.spec,
        time_limit_seconds=row.time_limit_seconds,
        spent_seconds=_spent(session, row),
        started_at=now,
    )


def _begin_attempt(
    session: Session, job_id: int, *, worker: str, device: str | None, now: float
) -> tuple[int, int]:
    """Write the attempt's row; return its fencing number and its number within the job."""
    values = {"job": job_id, "by": worker, "on": device, "now": now}
    try:
        fence, number = session.connection().execute(_BEGIN, values).one()
    except IntegrityError as error:
        raise StaleAttemptError(f"job {job_id} already has a live attempt") from error
    return fence, number


def _spent(session: Session, job: Any) -> float:
    """Return the GPU-seconds that count against the time limit: those since the last retry."""
    if job.time_limit_seconds is None:
        return float(job.gpu_seconds)
    detail = session.connection().execute(_RETRIED, {"job": job.id}).scalar()
    return float(job.gpu_seconds - (detail or {}).get("spent_seconds", 0.0))


def _claim_of(session: Session, job: Job, attempt: Attempt) -> Claim:
    return Claim(
        fence=attempt.id,
        job_id=job.id,
        number=attempt.number,
        dispatch=job.dispatch,
        user_id=job.user_id,
        kind=job.kind,
        name=job.name,
        model=job.model,
        spec=job.spec,
        time_limit_seconds=job.time_limit_seconds,
        spent_seconds=_spent(session, job),
        started_at=attempt.started_at,
    )


def live_attempts(session: Session, worker: str | None = None) -> list[Claim]:
    """Return the attempts that the ledger believes to be running, of one worker or of all."""
    statement = (
        select(Job, Attempt)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Attempt.state == AttemptState.RUNNING)
        .order_by(Attempt.id)
    )
    if worker is not None:
        statement = statement.where(Attempt.worker == worker)
    return [_claim_of(session, job, attempt) for job, attempt in session.execute(statement)]


def standing_wishes(session: Session, fences: Collection[int]) -> dict[int, Wish | None]:
    """Return what users have asked of these attempts; one that may not write is left out."""
    rows = session.connection().execute(_WISHES, {"fences": list(fences)})
    return {fence: None if wish is None else Wish(wish) for fence, wish in rows}


def _live(session: Session, fence: int) -> Attempt:
    """Return the attempt, if it is still the one that may write."""
    attempt = session.get(Attempt, fence, populate_existing=True)
    if attempt is None or attempt.state != AttemptState.RUNNING:
        state = "unknown" if attempt is None else attempt.state
        raise StaleAttemptError(f"attempt {fence} is {state}; it may write nothing more")
    return attempt


def report_progress(
    session: Session, fence: int, *, done: int, total: int, eta_seconds: float | None
) -> None:
    """Record how far the job is."""
    revision = next_revision(session)
    values = {"fence": fence, "done": done, "total": total, "eta": eta_seconds}
    result = session.connection().execute(_PROGRESS, {**values, "next_revision": revision})
    if result.rowcount == 0:
        _live(session, fence)


def report_metrics(
    session: Session, fence: int, rows: Sequence[tuple[int, str, float, float]]
) -> None:
    """Record numbers as (step, name, value, time)."""
    attempt = _live(session, fence)
    session.add_all(
        Metric(job_id=attempt.job_id, attempt_id=fence, step=step, name=name, value=value, at=at)
        for step, name, value, at in rows
    )
    touch(session, session.get_one(Job, attempt.job_id))


def report_facts(session: Session, fence: int, facts: Mapping[str, Any]) -> None:
    """Add to what is known of how the attempt runs (hashes, versions, the chip)."""
    attempt = _live(session, fence)
    attempt.facts = {**attempt.facts, **facts}
    session.flush()


def add_checkpoint(
    session: Session, fence: int, *, step: int, folder: str, files: Sequence[File], now: float
) -> None:
    """Record a checkpoint and its files, usable from now on whatever becomes of the job."""
    attempt = _live(session, fence)
    session.add(
        Checkpoint(
            job_id=attempt.job_id, attempt_id=fence, step=step, folder=folder, created_at=now
        )
    )
    _add_files(session, attempt.job_id, fence, files, now)
    job = session.get_one(Job, attempt.job_id)
    job.interruptions = 0
    jobs.record(session, job, "checkpointed", actor=attempt.worker, now=now, step=step)
    touch(session, job)


def _add_files(
    session: Session, job_id: int, fence: int, files: Sequence[File], now: float
) -> None:
    session.add_all(
        Artifact(
            job_id=job_id,
            attempt_id=fence,
            name=file.name,
            kind=file.kind,
            step=file.step,
            bytes=file.bytes,
            sha256=file.sha256,
            created_at=now,
        )
        for file in files
    )


def set_resumed_step(session: Session, fence: int, step: int) -> None:
    """Record from which checkpoint the attempt goes on."""
    _live(session, fence).resumed_step = step


def end(session: Session, fence: int, ending: Ending, *, now: float) -> JobState:
    """End the attempt, publish its files, decide the job's state and return it."""
    row: Any = session.connection().execute(_ENDING, {"fence": fence}).one_or_none()
    if row is None:
        raise StaleAttemptError(f"attempt {fence} has ended already; it may write nothing more")
    _close(session, fence, ending, now)
    if ending.state == AttemptState.SUCCEEDED:
        _add_files(session, row.job_id, fence, ending.files, now)
    after = job_after(row, ending, now=now, fruitless=_is_fruitless(session, row, ending))
    values = {**after, **_account(row, ending), "revision": next_revision(session)}
    session.connection().execute(update(_JOBS).where(_JOBS.c.id == row.job_id), values)
    charge(session, row.user_id, (row.used, row.used_at), seconds=ending.gpu_seconds, now=now)
    event, why = f"attempt_{ending.state}", ending.reason
    jobs.record_event(session, row.job_id, event, actor=row.worker, now=now, reason=why)
    state = JobState(after["state"])
    if state in ENDED:
        jobs.settle_dependents(session, row.job_id, now=now)
    return state


def _is_fruitless(session: Session, row: Any, ending: Ending) -> bool:
    """Return whether a job of a kind that makes files was finished early and has none."""
    if (row.wish, ending.state) != (Wish.FINISH, AttemptState.SUCCEEDED) or row.kind in _FILELESS:
        return False
    made = select(Artifact.id).where(Artifact.job_id == row.job_id).limit(1)
    return session.scalar(made) is None


def _close(session: Session, fence: int, ending: Ending, now: float) -> None:
    values = {
        "fence": fence,
        "end": ending.state,
        "now": now,
        "why": ending.reason,
        "seconds": ending.gpu_seconds,
        "peak": ending.peak_memory_bytes,
    }
    session.connection().execute(_CLOSE, values)


def _account(row: Any, ending: Ending) -> dict[str, Any]:
    """Return the columns of the job that add up over its attempts, and its last progress."""
    peaks = [peak for peak in (row.peak_memory_bytes, ending.peak_memory_bytes) if peak is not None]
    values = {
        "gpu_seconds": row.gpu_seconds + ending.gpu_seconds,
        "peak_memory_bytes": max(peaks, default=None),
        "eta_seconds": None,
    }
    if ending.progress is not None:
        values["progress_done"], values["progress_total"] = ending.progress
    return values
