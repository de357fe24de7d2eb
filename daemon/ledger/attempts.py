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

from daemon import defaults
from daemon.errors import StaleAttemptError
from daemon.ledger import jobs
from daemon.ledger.revision import next_revision, touch
from daemon.ledger.states import AttemptState, JobState, Wish
from daemon.ledger.tables import Artifact, Attempt, Checkpoint, Job, Metric, User
from daemon.ledger.users import charge

_OUTCOMES = {
    AttemptState.SUCCEEDED: JobState.SUCCEEDED,
    AttemptState.FAILED: JobState.FAILED,
    AttemptState.CANCELLED: JobState.CANCELLED,
    AttemptState.TIMED_OUT: JobState.FAILED,
    AttemptState.OUT_OF_MEMORY: JobState.FAILED,
}
_RETRIED = frozenset({AttemptState.FAILED})


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


# The statements of the road that every job takes are built once (see daemon.ledger.revision).
_JOBS = cast("Table", Job.__table__)
_ATTEMPTS = cast("Table", Attempt.__table__)
_TAKE = (
    update(_JOBS)
    .where(_JOBS.c.id == bindparam("job"), _JOBS.c.state == JobState.QUEUED)
    .values(
        state=JobState.RUNNING,
        reason=None,
        wish=None,
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
_LIVE_PARTS = (
    select(Attempt, Job, User)
    .join(Job, Job.id == Attempt.job_id)
    .join(User, User.id == Job.user_id)
    .where(Attempt.id == bindparam("fence"))
    .execution_options(populate_existing=True)
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
        spent_seconds=row.gpu_seconds,
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


def _claim_of(job: Job, attempt: Attempt) -> Claim:
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
        spent_seconds=job.gpu_seconds,
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
    return [_claim_of(job, attempt) for job, attempt in session.execute(statement)]


def standing_wishes(session: Session, fences: Collection[int]) -> dict[int, Wish | None]:
    """Return what users have asked of these attempts; one that may not write is left out."""
    rows = session.connection().execute(_WISHES, {"fences": list(fences)})
    return {fence: None if wish is None else Wish(wish) for fence, wish in rows}


def _live(session: Session, fence: int) -> Attempt:
    """Return the attempt, if it is still the one that may write."""
    return _live_parts(session, fence)[0]


def _live_parts(session: Session, fence: int) -> tuple[Attempt, Job, User]:
    """Return the attempt, its job and the job's user, if the attempt may still write."""
    found = session.execute(_LIVE_PARTS, {"fence": fence}).first()
    if found is None or found[0].state != AttemptState.RUNNING:
        state = "unknown" if found is None else found[0].state
        raise StaleAttemptError(f"attempt {fence} is {state}; it may write nothing more")
    return found[0], found[1], found[2]


def report_progress(
    session: Session, fence: int, *, done: int, total: int, eta_seconds: float | None
) -> None:
    """Record how far the job is."""
    job = session.get_one(Job, _live(session, fence).job_id)
    job.progress_done, job.progress_total, job.eta_seconds = done, total, eta_seconds
    touch(session, job)


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
    _add_files(session, attempt, files, now)
    job = session.get_one(Job, attempt.job_id)
    job.interruptions = 0
    jobs.record(session, job, "checkpointed", actor=attempt.worker, now=now, step=step)
    touch(session, job)


def _add_files(session: Session, attempt: Attempt, files: Sequence[File], now: float) -> None:
    session.add_all(
        Artifact(
            job_id=attempt.job_id,
            attempt_id=attempt.id,
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
    attempt, job, user = _live_parts(session, fence)
    attempt.state = ending.state
    attempt.ended_at = now
    attempt.reason = ending.reason
    attempt.gpu_seconds = ending.gpu_seconds
    attempt.peak_memory_bytes = ending.peak_memory_bytes
    if ending.state == AttemptState.SUCCEEDED:
        _add_files(session, attempt, ending.files, now)
    _account(job, user, ending, now)
    jobs.record(
        session, job, f"attempt_{ending.state}", actor=attempt.worker, now=now, reason=ending.reason
    )
    _decide(session, job, ending, now=now)
    return JobState(job.state)


def _account(job: Job, user: User, ending: Ending, now: float) -> None:
    job.gpu_seconds += ending.gpu_seconds
    peaks = [peak for peak in (job.peak_memory_bytes, ending.peak_memory_bytes) if peak is not None]
    job.peak_memory_bytes = max(peaks, default=None)
    job.eta_seconds = None
    if ending.progress is not None:
        job.progress_done, job.progress_total = ending.progress
    charge(user, seconds=ending.gpu_seconds, now=now)


def _decide(session: Session, job: Job, ending: Ending, *, now: float) -> None:
    """Give the job the state that follows from how its attempt ended."""
    outcome = _OUTCOMES.get(ending.state)
    if job.wish == Wish.CANCEL and outcome != JobState.SUCCEEDED:
        _finish(session, job, JobState.CANCELLED, "cancelled while it ran", None, now=now)
    elif ending.state in _RETRIED and job.retries_left > 0:
        job.retries_left -= 1
        jobs.enqueue_again(
            session, job, now=now, reason=f"failed and is tried again: {ending.reason}"
        )
    elif outcome is not None:
        reason = None if outcome == JobState.SUCCEEDED else ending.reason
        _finish(session, job, outcome, reason, ending.error, now=now)
    elif ending.state == AttemptState.INTERRUPTED:
        _interrupt(session, job, ending, now=now)
    else:
        jobs.enqueue_again(session, job, now=now, reason=ending.reason)


def _finish(
    session: Session,
    job: Job,
    state: JobState,
    reason: str | None,
    error: Mapping[str, Any] | None,
    *,
    now: float,
) -> None:
    job.state = state
    job.reason = reason
    job.error = dict(error) if error is not None else None
    job.wish = None
    job.ended_at = now
    touch(session, job)
    jobs.settle_dependents(session, job, now=now)


def _interrupt(session: Session, job: Job, ending: Ending, *, now: float) -> None:
    """Queue the job again, unless it has now been interrupted too often without progress."""
    job.interruptions += 1
    if job.interruptions < defaults.MAX_INTERRUPTIONS:
        reason = f"was interrupted and goes on: {ending.reason}"
        jobs.enqueue_again(session, job, now=now, reason=reason)
        return
    message = (
        f"the job was interrupted {job.interruptions} times in a row without a new checkpoint; "
        f"the last time: {ending.reason}"
    )
    error = {
        "code": "interrupted",
        "message": message,
        "field": None,
        "remedy": f"see studioq logs {job.id}; studioq retry {job.id} tries again",
    }
    _finish(session, job, JobState.FAILED, message, error, now=now)
