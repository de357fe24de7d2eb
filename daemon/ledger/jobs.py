"""The life of a job outside its attempts: submitted, waiting, held, queued, cancelled, retried.

Each function is one change inside the caller's transaction. It checks the state it finds and raises
``ConflictError`` rather than guess what was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Table, bindparam, insert, or_, select
from sqlalchemy.orm import Session

from daemon.errors import ConflictError, NotFoundError
from daemon.ledger.revision import next_revision, touch
from daemon.ledger.states import ENDED, NOT_STARTED, DownloadState, JobState, Wish
from daemon.ledger.tables import Dependency, Download, Job, JobEvent, JobInput

DAEMON = "daemon"

# Statements of the road that every job takes are built once (see daemon.ledger.revision).
_JOBS = cast("Table", Job.__table__)
_SUBMIT = insert(_JOBS).returning(_JOBS.c.id)
_FREE = {"state": JobState.QUEUED, "dispatch": 1}
_RECORD = insert(cast("Table", JobEvent.__table__))
_DEPENDENTS = (
    select(Job.id)
    .join(Dependency, Dependency.job_id == Job.id)
    .where(Dependency.needs_id == bindparam("needed"), Job.state == JobState.WAITING)
)


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A checked submission; ``inputs`` maps a place in the spec to (file name, sha256)."""

    user_id: int
    kind: str
    spec: Mapping[str, Any]
    model: str | None = None
    name: str | None = None
    priority: int = 0
    after: Sequence[int] = ()
    hold: bool = False
    begin_at: float | None = None
    time_limit_seconds: float | None = None
    retries: int = 0
    share: bool = False
    needs_download: bool = False
    repeats_id: int | None = None
    inputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job as an answer names it, and its dispatch number if it is queued."""

    id: int
    state: str
    reason: str | None
    dispatch: int

    @classmethod
    def of(cls, job: Job) -> Submitted:
        """Return what is to be said of ``job`` after a change."""
        return cls(id=job.id, state=job.state, reason=job.reason, dispatch=job.dispatch)


def get_job(session: Session, number: int) -> Job:
    """Return the job.

    Raises:
        NotFoundError: there is none with this number.
    """
    job = session.get(Job, number)
    if job is None:
        raise NotFoundError(f"there is no job {number}", remedy="studioq list --all shows all jobs")
    return job


def record(
    session: Session, job: Job, action: str, *, actor: str, now: float, **detail: Any
) -> None:
    """Write an event of the job's history."""
    record_event(session, job.id, action, actor=actor, now=now, **detail)


def record_event(
    session: Session, job_id: int, action: str, *, actor: str, now: float, **detail: Any
) -> None:
    """Write an event of the history of the job with this number, which is in the ledger."""
    values = {"job_id": job_id, "at": now, "action": action, "actor": actor, "detail": detail}
    session.connection().execute(_RECORD, values)


def submit(session: Session, new: NewJob, *, actor: str, now: float) -> Submitted:
    """Write a new job in the state that follows from what it waits for."""
    free = not (new.hold or new.after or new.needs_download or _starts_later(new.begin_at, now))
    values = {**_row_of(new, now), **(_FREE | {"queued_at": now} if free else {})}
    values["revision"] = next_revision(session)
    number: int = session.connection().execute(_SUBMIT, values).scalar_one()
    for needed in sorted(set(new.after)):
        get_job(session, needed)
        session.add(Dependency(job_id=number, needs_id=needed))
    for place, (name, sha256) in new.inputs.items():
        session.add(JobInput(job_id=number, place=place, name=name, sha256=sha256))
    record_event(session, number, "submitted", actor=actor, now=now)
    if free or new.hold:
        return Submitted(
            id=number, state=values["state"], reason=values["reason"], dispatch=values["dispatch"]
        )
    session.flush()
    job = session.get_one(Job, number)
    _settle(session, job, now=now)
    return Submitted.of(job)


def _row_of(new: NewJob, now: float) -> dict[str, Any]:
    """Return the columns of a job that still waits, or is held."""
    return {
        "user_id": new.user_id,
        "kind": new.kind,
        "name": new.name,
        "state": JobState.HELD if new.hold else JobState.WAITING,
        "reason": "held by its user" if new.hold else None,
        "priority": new.priority,
        "model": new.model,
        "spec": dict(new.spec),
        "share": new.share,
        "begin_at": new.begin_at,
        "time_limit_seconds": new.time_limit_seconds,
        "retries_left": new.retries,
        "needs_download": new.needs_download,
        "repeats_id": new.repeats_id,
        "created_at": now,
        "queued_at": None,
        "dispatch": 0,
    }


def _settle(session: Session, job: Job, *, now: float) -> None:
    """Move a waiting job on if nothing is in its way, else say what is."""
    if job.state == JobState.WAITING:
        obstacle = _obstacle(session, job, now)
        if obstacle is None:
            _enqueue(job, now=now)
        elif obstacle.final:
            _end_unstarted(session, job, obstacle, now=now)
        else:
            job.reason = obstacle.text
    touch(session, job)
    if job.state in ENDED:
        settle_dependents(session, job.id, now=now)


@dataclass(frozen=True, kw_only=True)
class _Obstacle:
    text: str
    final: JobState | None = None
    error: dict[str, Any] | None = None


def _obstacle(session: Session, job: Job, now: float) -> _Obstacle | None:
    """Return the first thing that keeps the job from the queue."""
    return _needed_job(session, job) or _needed_model(session, job) or _start_time(job, now)


def _needed_job(session: Session, job: Job) -> _Obstacle | None:
    needed = session.scalars(
        select(Job)
        .join(Dependency, Dependency.needs_id == Job.id)
        .where(Dependency.job_id == job.id, Job.state != JobState.SUCCEEDED)
        .order_by(Job.id)
    ).all()
    for other in needed:
        if other.state in ENDED:
            return _Obstacle(
                text=f"job {other.id}, which it needs, {_word(other.state)}",
                final=JobState.CANCELLED,
                error={
                    "code": "dependency",
                    "message": f"job {other.id}, which this job needs, {_word(other.state)}",
                    "field": None,
                    "remedy": f"studioq retry {other.id}, then submit this job again",
                },
            )
    return _Obstacle(text=f"waits for job {needed[0].id}") if needed else None


def _needed_model(session: Session, job: Job) -> _Obstacle | None:
    if not job.needs_download:
        return None
    download = session.get(Download, job.model)
    if download is None or download.state in {DownloadState.PENDING, DownloadState.RUNNING}:
        return _Obstacle(text=_download_text(job.model or "its model", download))
    if download.state == DownloadState.FAILED:
        return _Obstacle(
            text=f"the download of {job.model} failed",
            final=JobState.FAILED,
            error=download.error,
        )
    job.needs_download = False
    return None


def _download_text(model: str, download: Download | None) -> str:
    if download is None or download.state == DownloadState.PENDING:
        return f"waits for the download of {model}"
    if not download.total_bytes:
        return f"downloading {model}"
    done, total = download.done_bytes / 1e6, download.total_bytes / 1e6
    return f"downloading {model}: {done:.0f} of {total:.0f} MB"


def _start_time(job: Job, now: float) -> _Obstacle | None:
    late = _starts_later(job.begin_at, now)
    return _Obstacle(text="waits for its start time") if late else None


def _starts_later(begin_at: float | None, now: float) -> bool:
    return begin_at is not None and begin_at > now


def _enqueue(job: Job, *, now: float) -> None:
    """Put the job among those the worker may claim, under a dispatch number of its own."""
    job.state = JobState.QUEUED
    job.reason = None
    job.dispatch += 1
    job.queued_at = now


def _end_unstarted(session: Session, job: Job, obstacle: _Obstacle, *, now: float) -> None:
    assert obstacle.final is not None  # noqa: S101 - the caller has looked
    job.state = obstacle.final
    job.reason, job.wish = obstacle.text, None
    job.error = obstacle.error
    job.ended_at = now
    record(session, job, str(obstacle.final), actor=DAEMON, now=now, reason=obstacle.text)


def settle_dependents(session: Session, job_id: int, *, now: float) -> None:
    """Look again at the jobs that wait for the job ``job_id``, which has just ended."""
    waiting = session.connection().execute(_DEPENDENTS, {"needed": job_id}).scalars().all()
    for number in waiting:
        _settle(session, session.get_one(Job, number, populate_existing=True), now=now)


def settle_waiting(session: Session, *, now: float) -> list[int]:
    """Move every waiting job whose time or model has come; return those that were queued."""
    due = session.scalars(
        select(Job).where(
            Job.state == JobState.WAITING,
            or_(Job.begin_at.is_(None), Job.begin_at <= now),
        )
    ).all()
    moved = []
    for job in due:
        if _obstacle(session, job, now) != _Obstacle(text=job.reason or ""):
            _settle(session, job, now=now)
            if job.state == JobState.QUEUED:
                moved.append(job.id)
    return moved


def settle_model(session: Session, model: str, *, now: float) -> None:
    """Tell the jobs that wait for ``model`` how far its download is."""
    waiting = session.scalars(
        select(Job).where(
            Job.state == JobState.WAITING, Job.model == model, Job.needs_download.is_(True)
        )
    ).all()
    for job in waiting:
        _settle(session, job, now=now)


def cancel(session: Session, number: int, *, actor: str, now: float) -> Job:
    """Cancel a job that has not started, or ask for it when it runs."""
    job = get_job(session, number)
    if job.state in ENDED:
        raise ConflictError(f"job {number} has already ended: it {_word(job.state)}")
    record(session, job, "cancel_requested", actor=actor, now=now)
    if job.state in NOT_STARTED:
        job.state = JobState.CANCELLED
        job.reason, job.wish = f"cancelled by {actor}", None
        job.ended_at = now
        touch(session, job)
        settle_dependents(session, job.id, now=now)
    else:
        job.wish = Wish.CANCEL
        job.reason = f"is being cancelled by {actor}"
        touch(session, job)
    return job


def _word(state: str) -> str:
    ended = {"cancelled": "was cancelled"}.get(state, state)
    return ended if state in ENDED else f"is {state}"


def finish(session: Session, number: int, *, actor: str, now: float) -> Job:
    """Ask a running job to end now, as succeeded, with what it has."""
    job = get_job(session, number)
    if job.state != JobState.RUNNING:
        raise ConflictError(
            f"job {number} {_word(job.state)}; only a running job can be finished early",
            remedy=f"studioq fetch {number} brings what it made"
            if job.state in ENDED
            else f"studioq cancel {number} takes a job that has not started off the queue",
        )
    if job.kind == "convert":
        raise ConflictError(
            f"job {number} is a conversion; it cannot end early with half of a model",
            remedy=f"studioq cancel {number} ends it without a model",
        )
    if job.wish != Wish.CANCEL:
        job.wish = Wish.FINISH
        job.reason = f"is being finished early by {actor}"
    record(session, job, "finish_requested", actor=actor, now=now)
    touch(session, job)
    return job


def hold(session: Session, number: int, *, actor: str, now: float) -> Job:
    """Keep a job that has not started from starting."""
    job = get_job(session, number)
    if job.state not in {JobState.QUEUED, JobState.WAITING, JobState.PAUSED}:
        raise ConflictError(f"job {number} {_word(job.state)}; only a waiting job can be held")
    job.state = JobState.HELD
    job.reason = f"held by {actor}"
    record(session, job, "held", actor=actor, now=now)
    touch(session, job)
    return job


def release(session: Session, number: int, *, actor: str, now: float) -> Job:
    """Let a held job go on."""
    job = get_job(session, number)
    if job.state != JobState.HELD:
        raise ConflictError(f"job {number} {_word(job.state)}; only a held job can be released")
    record(session, job, "released", actor=actor, now=now)
    job.state = JobState.WAITING
    job.reason = None
    _settle(session, job, now=now)
    return job


def retry(session: Session, number: int, *, actor: str, now: float) -> Job:
    """Queue a failed or cancelled job again, with its whole time limit.

    It goes on from its last checkpoint. What it has used so far is noted in its history, where
    ``attempts.claim`` finds it.
    """
    job = get_job(session, number)
    if job.state not in {JobState.FAILED, JobState.CANCELLED}:
        raise ConflictError(
            f"job {number} {_word(job.state)}; only a failed or cancelled job is retried"
        )
    _forget_failed_download(session, job)
    record(session, job, "retried", actor=actor, now=now, spent_seconds=job.gpu_seconds)
    job.state = JobState.WAITING
    job.error = job.reason = job.wish = job.ended_at = None
    job.interruptions = 0
    _settle(session, job, now=now)
    return job


def _forget_failed_download(session: Session, job: Job) -> None:
    download = session.get(Download, job.model) if job.model else None
    if download is not None and download.state == DownloadState.FAILED:
        download.state = DownloadState.PENDING
        download.error = None


def set_priority(session: Session, number: int, priority: int, *, actor: str, now: float) -> Job:
    """Change the priority of a job that has not ended."""
    job = get_job(session, number)
    if job.state in ENDED:
        raise ConflictError(f"job {number} has already ended: it {_word(job.state)}")
    record(session, job, "priority_set", actor=actor, now=now, old=job.priority, new=priority)
    job.priority = priority
    touch(session, job)
    return job


def queued_among(session: Session, numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return (job, dispatch) of those of ``numbers`` that are queued."""
    rows = session.execute(
        select(Job.id, Job.dispatch).where(Job.id.in_(list(numbers)), Job.state == JobState.QUEUED)
    )
    return [(number, dispatch) for number, dispatch in rows]


def queued_dispatches(session: Session) -> Iterable[tuple[int, int]]:
    """Return (job, dispatch) of every queued job, in order of number."""
    rows = session.execute(
        select(Job.id, Job.dispatch).where(Job.state == JobState.QUEUED).order_by(Job.id)
    )
    return [(number, dispatch) for number, dispatch in rows]
