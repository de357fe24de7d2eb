"""The ledger's revision: one number per change, so that readers can ask what changed since."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Table, select, update
from sqlalchemy.orm import Session

from daemon.ledger.tables import Job, LedgerInfo

# Statements of the road that every job takes are built once, and run without the ORM: building and
# unpacking them costs several times what SQLite does.
_INFO = cast("Table", LedgerInfo.__table__)
_NEXT = update(_INFO).values(revision=_INFO.c.revision + 1).returning(_INFO.c.revision)
_STANDING = select(_INFO.c.revision, _INFO.c.draining)


def next_revision(session: Session) -> int:
    """Take the next revision number; the row's lock makes it the only one of its kind."""
    revision: int = session.connection().execute(_NEXT).scalar_one()
    return revision


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


def standing(session: Session) -> tuple[int, bool]:
    """Return the revision of the last change, and whether new starts are suspended."""
    revision, draining = session.connection().execute(_STANDING).one()
    return revision, draining


def set_draining(session: Session, draining: bool) -> None:
    """Suspend new starts, or allow them again."""
    session.execute(update(LedgerInfo).values(draining=draining))
    next_revision(session)
