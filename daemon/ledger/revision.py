"""The ledger's revision: one number per change, so that readers can ask what changed since."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from daemon.ledger.tables import Job, LedgerInfo


def next_revision(session: Session) -> int:
    """Take the next revision number; the row's lock makes it the only one of its kind."""
    statement = (
        update(LedgerInfo)
        .values(revision=LedgerInfo.revision + 1)
        .returning(LedgerInfo.revision)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).scalar_one()


def current_revision(session: Session) -> int:
    """Return the revision of the last change."""
    return session.scalars(select(LedgerInfo.revision)).one()


def touch(session: Session, job: Job) -> None:
    """Stamp ``job`` with a new revision: every function that changes a job ends with this."""
    job.revision = next_revision(session)
    session.flush()


def ledger_id(session: Session) -> str:
    """Return the ledger's own name, part of every RQ id, so that two homes can share one Redis."""
    return session.scalars(select(LedgerInfo.ledger_id)).one()


def is_draining(session: Session) -> bool:
    """Return whether new starts are suspended."""
    return session.scalars(select(LedgerInfo.draining)).one()


def set_draining(session: Session, draining: bool) -> None:
    """Suspend new starts, or allow them again."""
    session.execute(update(LedgerInfo).values(draining=draining))
    next_revision(session)
