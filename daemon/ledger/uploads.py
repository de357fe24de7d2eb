"""Which user has uploaded which content, and what may be deleted.

A user never learns what others have uploaded: every question is asked per user. The content of a
hash is stored once; it is deleted when no job cites it and no upload younger than a day remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.orm import Session

from daemon import defaults
from daemon.ledger.tables import Job, JobInput, Upload

# Asked for every job that starts; see daemon.ledger.revision.
_INPUTS = select(JobInput.place, JobInput.name, JobInput.sha256).where(
    JobInput.job_id == bindparam("job")
)


def add_upload(session: Session, *, user_id: int, sha256: str, size: int, now: float) -> None:
    """Record that the user has this content, from now on for a day or until a job cites it."""
    session.merge(Upload(sha256=sha256, user_id=user_id, bytes=size, uploaded_at=now))
    session.flush()


def has_uploaded(session: Session, *, user_id: int, sha256: str) -> bool:
    """Return whether this user has uploaded this content, or has a job that cites it."""
    if session.get(Upload, (sha256, user_id)) is not None:
        return True
    cited = (
        select(JobInput.job_id)
        .join(Job, Job.id == JobInput.job_id)
        .where(JobInput.sha256 == sha256, Job.user_id == user_id)
        .limit(1)
    )
    return session.scalar(cited) is not None


def unused_bytes(session: Session, user_id: int, *, besides: str) -> int:
    """Return the size of this user's uploads that no job cites, ``besides`` one not counted."""
    cited = select(JobInput.sha256).where(JobInput.sha256 == Upload.sha256)
    statement = select(func.coalesce(func.sum(Upload.bytes), 0)).where(
        Upload.user_id == user_id, Upload.sha256 != besides, ~cited.exists()
    )
    return session.scalars(statement).one()


def inputs_of(session: Session, job_id: int) -> Mapping[str, tuple[str, str]]:
    """Return the job's files: place in the spec to (file name, sha256)."""
    rows = session.connection().execute(_INPUTS, {"job": job_id})
    return {place: (name, sha256) for place, name, sha256 in rows}


def expire_uploads(session: Session, *, now: float) -> Sequence[str]:
    """Forget uploads that nobody used for a day; return the hashes that nothing needs any more."""
    old = session.scalars(
        select(Upload.sha256).where(Upload.uploaded_at < now - defaults.UPLOAD_KEPT)
    ).all()
    session.execute(delete(Upload).where(Upload.uploaded_at < now - defaults.UPLOAD_KEPT))
    return [sha256 for sha256 in sorted(set(old)) if not _needed(session, sha256)]


def _needed(session: Session, sha256: str) -> bool:
    cited = session.scalar(select(JobInput.job_id).where(JobInput.sha256 == sha256).limit(1))
    kept = session.scalar(select(Upload.user_id).where(Upload.sha256 == sha256).limit(1))
    return cited is not None or kept is not None
