"""Questions about the queue: its lines, the places in it, and who owns what.

The rule it protects: a list costs what it shows, not what the ledger holds. Lines are read as plain
columns (no ORM objects), the long part of a job (its spec) is never touched, and a place in the
queue is computed by SQLite.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Row, Select, Table, bindparam, case, exists, func, or_, select
from sqlalchemy.orm import Session

from daemon.access import Person
from daemon.errors import NotFoundError
from daemon.ledger import views
from daemon.ledger.revision import current_revision
from daemon.ledger.states import ENDED, AttemptState, DownloadState, JobState
from daemon.ledger.tables import Attempt, Dependency, Download, Job, User
from daemon.ledger.users import usage_by_user
from daemon.ledger.workers import what_engine_waits_for

LINE = (
    Job.id,
    Job.kind,
    Job.name,
    Job.state,
    Job.reason,
    Job.priority,
    Job.model,
    Job.share,
    Job.created_at,
    Job.started_at,
    Job.ended_at,
    Job.progress_done,
    Job.progress_total,
    Job.eta_seconds,
    Job.peak_memory_bytes,
    Job.gpu_seconds,
    Job.error,
    Job.revision,
    User.name.label("user"),
    User.uid.label("owner_uid"),
    case((Job.kind == "convert", Job.spec["to"].as_string())).label("to"),
    select(Attempt.started_at)
    .where(Attempt.job_id == Job.id, Attempt.state == AttemptState.RUNNING)
    .correlate(Job)
    .scalar_subquery()
    .label("attempt_started_at"),
)
_BUSY = (JobState.RUNNING, JobState.PAUSED)

_JOBS = cast("Table", Job.__table__)
_needed = _JOBS.alias("needed")
_DUE = (
    select(_JOBS.c.id)
    .where(
        _JOBS.c.state == JobState.WAITING,
        _JOBS.c.begin_at <= bindparam("now"),
        ~exists()
        .where(Dependency.job_id == _JOBS.c.id, Dependency.needs_id == _needed.c.id)
        .where(_needed.c.state.not_in(ENDED)),
        or_(
            _JOBS.c.needs_download.is_(False),
            exists().where(
                Download.model == _JOBS.c.model,
                Download.state.in_((DownloadState.READY, DownloadState.FAILED)),
            ),
        ),
    )
    .limit(1)
)

# How much of a list is kept for jobs that have ended, where the caller did not ask for all.
_ENDED_SHARE = 5


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which jobs to list; ``everything`` adds every ended job, ``since`` is a revision."""

    everything: bool = False
    user: str | None = None
    state: str | None = None
    kind: str | None = None
    limit: int = 50
    since: int | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What rights and answers about one job depend on."""

    id: int
    kind: str
    state: str
    reason: str | None
    error: Mapping[str, Any] | None
    share: bool
    owner_uid: int
    owner: str

    @property
    def ended(self) -> bool:
        """Whether the job is over."""
        return self.state in ENDED


def list_jobs(session: Session, person: Person, wanted: Filter, *, now: float) -> views.Json:
    """Return the lines of the queue that ``wanted`` describes, newest job first.

    ``total`` counts the jobs that the filters match: without ``everything`` those that have not
    ended and the ended ones shown. With ``since``, ``revision`` is that of the last change given,
    so that asking again from there loses none.
    """
    revision = current_revision(session)
    rows, total = _chosen(session, wanted)
    if wanted.since is not None and len(rows) < total:
        revision = max((row.revision for row in rows), default=revision)
    queued = [row.id for row in rows if row.state == JobState.QUEUED]
    places = positions(session, queued, now=now)
    waits = what_engine_waits_for(session) if queued else None
    rows.sort(key=lambda row: row.id, reverse=True)
    lines = [views.job_line(row, person, places.get(row.id), engine_waits=waits) for row in rows]
    return {"revision": revision, "total": total, "jobs": lines}


def _lines(wanted: Filter) -> Select[Any]:
    """Return the statement for the lines that the filters match."""
    statement = select(*LINE).join(User, User.id == Job.user_id)
    if wanted.user is not None:
        statement = statement.where(User.name == wanted.user)
    if wanted.state is not None:
        statement = statement.where(Job.state == wanted.state)
    if wanted.kind is not None:
        statement = statement.where(Job.kind == wanted.kind)
    if wanted.since is not None:
        statement = statement.where(Job.revision > wanted.since)
    return statement


def _chosen(session: Session, wanted: Filter) -> tuple[list[Row[Any]], int]:
    """Return the rows to show, in any order, and how many the filters match."""
    lines = _lines(wanted)
    if wanted.since is not None:
        return _first(session, lines, Job.revision, wanted.limit), _count(session, lines)
    if wanted.everything or wanted.state is not None:
        return _first(session, lines, Job.id.desc(), wanted.limit), _count(session, lines)
    open_jobs = lines.where(Job.state.not_in(ENDED))
    total = _count(session, open_jobs)
    room = wanted.limit - min(total, wanted.limit - wanted.limit // _ENDED_SHARE)
    ended = _first(session, lines.where(Job.state.in_(ENDED)), Job.ended_at.desc(), room)
    shown = _first_open(session, open_jobs, wanted.limit - len(ended))
    return [*shown, *ended], total + len(ended)


def _first_open(session: Session, statement: Select[Any], limit: int) -> list[Row[Any]]:
    """Return what is running, then the newest of what waits."""
    busy = _first(session, statement.where(Job.state.in_(_BUSY)), Job.id.desc(), limit)
    waiting = statement.where(Job.state.not_in(_BUSY))
    return [*busy, *_first(session, waiting, Job.id.desc(), limit - len(busy))]


def _first(session: Session, statement: Select[Any], order: Any, limit: int) -> list[Row[Any]]:
    if limit <= 0:
        return []
    return list(session.execute(statement.order_by(order).limit(limit)))


def _count(session: Session, statement: Select[Any]) -> int:
    return session.scalar(statement.with_only_columns(func.count(Job.id))) or 0


def positions(session: Session, numbers: Collection[int], *, now: float) -> dict[int, int]:
    """Return the places in the queue (1 is next) of those of ``numbers`` that are queued.

    The order is the scheduler's, as if use stayed what it is now: priority, then the user's decayed
    use, then age.
    """
    if not numbers:
        return {}
    share = _use_order(usage_by_user(session, now))
    place = func.row_number().over(order_by=(Job.priority.desc(), share, Job.id)).label("place")
    ranked = select(Job.id, place).where(Job.state == JobState.QUEUED).subquery()
    rows = session.execute(
        select(ranked.c.id, ranked.c.place).where(ranked.c.id.in_(list(numbers)))
    )
    return {row.id: row.place for row in rows}


def _use_order(usage: Mapping[int, float]) -> Any:
    """Return an SQL expression that orders users by their use; equal use is equal order."""
    steps = {used: order for order, used in enumerate(sorted(set(usage.values())))}
    ranks = {user: steps[used] for user, used in usage.items()}
    return case(ranks, value=Job.user_id, else_=len(steps)) if ranks else Job.user_id


def standing(session: Session, number: int) -> Standing:
    """Return what everybody may know of a job, and what its rights depend on.

    Raises:
        NotFoundError: there is none with this number.
    """
    found = standings(session, [number])
    if not found:
        raise NotFoundError(f"there is no job {number}", remedy="studioq list --all shows all jobs")
    return found[number]


def standings(session: Session, numbers: Sequence[int]) -> dict[int, Standing]:
    """Return the standing of every one of ``numbers`` that exists."""
    rows = session.execute(
        select(Job.id, Job.kind, Job.state, Job.reason, Job.error, Job.share, User.uid, User.name)
        .join(User, User.id == Job.user_id)
        .where(Job.id.in_(numbers))
    )
    return {
        number: Standing(
            id=number,
            kind=kind,
            state=state,
            reason=reason,
            error=error,
            share=share,
            owner_uid=uid,
            owner=owner,
        )
        for number, kind, state, reason, error, share, uid, owner in rows
    }


def job_counts(session: Session) -> dict[str, int]:
    """Return how many jobs there are in each state, empty states included."""
    found = dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all())
    return {str(state): found.get(state, 0) for state in JobState}


def has_due_jobs(session: Session, *, now: float) -> bool:
    """Return whether the start time of a waiting job has come, and nothing else keeps it."""
    return session.connection().execute(_DUE, {"now": now}).first() is not None


def waits_for_model(session: Session, model: str) -> bool:
    """Return whether a job still waits for the download of ``model``."""
    waiting = (
        select(Job.id)
        .where(
            Job.model == model,
            Job.needs_download.is_(True),
            Job.state.in_((JobState.WAITING, JobState.HELD)),
        )
        .limit(1)
    )
    return session.scalar(waiting) is not None
