"""The ledger's tables as typed SQLAlchemy models.

Times are seconds since 1970 UTC as floats, durations seconds, sizes bytes. ``revision`` is the
number of the transaction that last changed a job; it comes from the single row of ``ledger_info``
and only grows, so a reader that remembers one can ask what changed since.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, MetaData, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[Any] = {dict[str, Any]: JSON, list[str]: JSON}


class LedgerInfo(Base):
    """The ledger's own identity, its revision counter, and whether new starts are suspended."""

    __tablename__ = "ledger_info"

    id: Mapped[int] = mapped_column(primary_key=True)
    ledger_id: Mapped[str]
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    draining: Mapped[bool] = mapped_column(default=False)


class User(Base):
    """Somebody who has spoken to the daemon; ``uid`` is the peer's, as the kernel gave it."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[int] = mapped_column(unique=True)
    name: Mapped[str]
    created_at: Mapped[float]
    gpu_seconds: Mapped[float] = mapped_column(default=0.0)
    gpu_seconds_at: Mapped[float] = mapped_column(default=0.0)


class Job(Base):
    """What a user asked for, with every default filled in, and where it is in its life."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_head", "state", "user_id", "priority", "model", "id"),
        Index("ix_jobs_revision", "revision"),
        Index("ix_jobs_ended", "ended_at"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    kind: Mapped[str]
    name: Mapped[str | None]
    state: Mapped[str]
    reason: Mapped[str | None]
    priority: Mapped[int] = mapped_column(default=0)
    model: Mapped[str | None]
    spec: Mapped[dict[str, Any]]
    share: Mapped[bool] = mapped_column(default=False)
    begin_at: Mapped[float | None]
    time_limit_seconds: Mapped[float | None]
    retries_left: Mapped[int] = mapped_column(default=0)
    needs_download: Mapped[bool] = mapped_column(default=False)
    wish: Mapped[str | None]
    dispatch: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    repeats_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[float]
    queued_at: Mapped[float | None]
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    progress_done: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int] = mapped_column(default=0)
    eta_seconds: Mapped[float | None]
    gpu_seconds: Mapped[float] = mapped_column(default=0.0)
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[dict[str, Any] | None]
    revision: Mapped[int] = mapped_column(BigInteger, default=0)


class Dependency(Base):
    """Job ``job_id`` may start when job ``needs_id`` has succeeded."""

    __tablename__ = "dependencies"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    needs_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class Attempt(Base):
    """One try of running a job; its ``id`` is the fencing number of everything it writes."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index("uq_attempts_job_number", "job_id", "number", unique=True),
        Index(
            "uq_attempts_live",
            "job_id",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_attempts_state", "state"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    state: Mapped[str]
    worker: Mapped[str]
    device: Mapped[str | None]
    resumed_step: Mapped[int | None]
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    gpu_seconds: Mapped[float] = mapped_column(default=0.0)
    peak_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    reason: Mapped[str | None]
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Metric(Base):
    """One number that a job measured at a step."""

    __tablename__ = "metrics"
    __table_args__ = (Index("ix_metrics_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"))
    step: Mapped[int]
    name: Mapped[str]
    value: Mapped[float]
    at: Mapped[float]


class Artifact(Base):
    """A finished file in an attempt's folder; ``name`` is its path there."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("uq_artifacts_name", "attempt_id", "name", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"))
    name: Mapped[str]
    kind: Mapped[str]
    step: Mapped[int | None]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[float]


class Checkpoint(Base):
    """A step from which the job can be resumed; ``folder`` is relative to the attempt's."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index("uq_checkpoints_step", "attempt_id", "step", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"))
    step: Mapped[int]
    folder: Mapped[str]
    created_at: Mapped[float]


class Upload(Base):
    """User ``user_id`` has uploaded the content with this hash."""

    __tablename__ = "uploads"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    uploaded_at: Mapped[float]


class JobInput(Base):
    """A job cites an uploaded file at a place in its spec."""

    __tablename__ = "job_inputs"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    place: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(index=True)


class JobEvent(Base):
    """Something that happened to a job, who did it, and when."""

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    at: Mapped[float]
    action: Mapped[str]
    actor: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Download(Base):
    """A model that is being fetched while jobs wait for it."""

    __tablename__ = "downloads"

    model: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    done_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[dict[str, Any] | None]
    updated_at: Mapped[float]


class WorkerRow(Base):
    """A worker and its engine as they last reported themselves."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    pid: Mapped[int]
    started_at: Mapped[float]
    seen_at: Mapped[float]
    ended_at: Mapped[float | None]
    engine: Mapped[dict[str, Any]] = mapped_column(default=dict)
