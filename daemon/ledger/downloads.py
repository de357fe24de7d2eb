"""Models that are being fetched while jobs wait for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from daemon.ledger import jobs
from daemon.ledger.states import DownloadState
from daemon.ledger.tables import Download


def request_download(session: Session, model: str, *, now: float) -> None:
    """Ask for a model; a failed download is tried again."""
    download = session.get(Download, model)
    if download is None:
        session.add(Download(model=model, state=DownloadState.PENDING, updated_at=now))
    elif download.state in {DownloadState.FAILED, DownloadState.READY}:
        download.state = DownloadState.PENDING
        download.error = None
        download.updated_at = now
    session.flush()


def pending_downloads(session: Session) -> list[str]:
    """Return the models that nobody is fetching yet."""
    return list(
        session.scalars(
            select(Download.model)
            .where(Download.state == DownloadState.PENDING)
            .order_by(Download.updated_at)
        )
    )


def restart_downloads(session: Session) -> None:
    """Return what an earlier daemon was fetching to the pending ones."""
    session.execute(
        update(Download)
        .where(Download.state == DownloadState.RUNNING)
        .values(state=DownloadState.PENDING)
    )


def report_download(
    session: Session, model: str, *, done: int, total: int | None, now: float
) -> None:
    """Record how many bytes have come."""
    download = session.get_one(Download, model)
    download.state = DownloadState.RUNNING
    download.done_bytes, download.total_bytes, download.updated_at = done, total, now
    session.flush()
    jobs.settle_model(session, model, now=now)


def end_download(
    session: Session, model: str, *, error: Mapping[str, Any] | None, now: float
) -> list[int]:
    """Record the outcome, let the waiting jobs go on or fail, and return those now queued."""
    download = session.get_one(Download, model)
    download.state = DownloadState.FAILED if error is not None else DownloadState.READY
    download.error = dict(error) if error is not None else None
    download.updated_at = now
    session.flush()
    return jobs.settle_waiting(session, now=now)


def forget_download(session: Session, model: str) -> None:
    """Drop a download that was broken off because no job waited for it any more."""
    session.execute(delete(Download).where(Download.model == model))


def downloads(session: Session) -> list[Download]:
    """Return all downloads, for the list of models."""
    return list(session.scalars(select(Download).order_by(Download.model)))
