"""``studioq models rm``: who may remove which model, and how it goes.

The rule this module protects: a model is removed only by one who may, only from its own root, and
never while a job that has not ended needs it. It loses its name in one step, so that no job finds
half a model, and its files afterwards. Links are removed and never followed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon.access import Person
from daemon.conversions import makers
from daemon.errors import ConflictError, ForbiddenError, NotFoundError
from daemon.ledger.downloads import forget_download
from daemon.ledger.states import ENDED, DownloadState
from daemon.ledger.tables import Download, Job
from daemon.ledger.writer import Writer
from daemon.models import SHIPPED_MODELS, ModelRoots, Place, is_cached
from daemon.staging import staging_folder
from daemon.targets import user_folder

log = logging.getLogger(__name__)

_SNAPSHOTS = "snapshots"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A model that may be removed: its name, and what goes with it, under its root."""

    name: str
    root: Path
    paths: tuple[Path, ...]


def find_removal(models: ModelRoots, name: str, person: Person) -> Removal:
    """Return what removing the model would take away.

    Raises:
        NotFoundError: it is not here.
        ForbiddenError: it is not this person's to remove, or nobody's.
    """
    place = models.locate(name)
    if place is None:
        raise NotFoundError(
            f"there is no model {name[:80]!r} here to remove", remedy="studioq models list"
        )
    _require_removal(models, name, place, person)
    return Removal(name=name, root=place.root, paths=_belongings(place))


def forget_failed(models: ModelRoots, name: str, writer: Writer) -> bool:
    """Forget the download of a model that is not here, if it failed; return whether it had."""
    if models.locate(name) is not None:
        return False
    return writer.submit(lambda session: _forget(session, name)).result()


def _forget(session: Session, name: str) -> bool:
    download = session.get(Download, name)
    failed = download is not None and download.state == DownloadState.FAILED
    if failed:
        forget_download(session, name)
    return failed


def held_bytes(removal: Removal) -> int:
    """Return the bytes of files that have other names too, and so stay when these are removed."""
    return sum(
        status.st_size
        for path in removal.paths
        for status in _statuses(path)
        if S_ISREG(status.st_mode) and status.st_nlink > 1
    )


def _statuses(path: Path) -> Iterator[os.stat_result]:
    for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with suppress(OSError):
            yield file.lstat()


def remove(removal: Removal, *, models: ModelRoots, writer: Writer, person: Person) -> None:
    """Remove the model and return when its files are gone.

    Raises:
        ConflictError: a job that has not ended needs it.
        ForbiddenError: its root can only be read.
    """
    with _write_errors(removal), staging_folder(removal.root) as folder:
        writer.submit(lambda session: _take_name(session, removal, models, folder)).result()
    log.info("action=model_removed model=%s root=%s by=%s", removal.name, removal.root, person.name)


def _require_removal(models: ModelRoots, name: str, place: Place, person: Person) -> None:
    if place.root == SHIPPED_MODELS:
        raise ForbiddenError(
            f"{name} comes with studioq and is not removed",
            remedy="a model of the same name in another root is taken in its stead",
        )
    if person.admin:
        return
    own = user_folder(person.name, person.uid)
    if place.root != models.roots[0] or place.path.parent != place.root / own:
        raise ForbiddenError(
            f"{name} is not your own; you are {person.name}, and your models are called {own}/…",
            remedy="ask an admin of this daemon",
        )


def _belongings(place: Place) -> tuple[Path, ...]:
    """Return what is to go: a cached model whole, a single file with its settings."""
    path = place.path
    cached = path.parent.parent
    if path.parent.name == _SNAPSHOTS and is_cached(cached) and place.root in cached.parents:
        return (cached,)
    beside = path.with_suffix(".json")
    return (path, beside) if path.is_file() and beside.is_file() else (path,)


def _take_name(session: Session, removal: Removal, models: ModelRoots, folder: Path) -> None:
    """Move the model out of reach, if no job needs it; the ledger stands still meanwhile."""
    needed = sorted({*_jobs_on(session, removal, models), *makers(session, removal.name)})
    if needed:
        numbers = ", ".join(map(str, needed[:_SHOWN])) + (", …" if len(needed) > _SHOWN else "")
        raise ConflictError(
            f"{removal.name} is needed by job{'s' if len(needed) > 1 else ''} {numbers}, "
            "not ended yet",
            remedy=f"wait for it, or end it: studioq cancel {needed[0]}",
        )
    for path in removal.paths:
        _check_inside(removal, path)
        with suppress(FileNotFoundError):
            path.rename(folder / path.name)


def _jobs_on(session: Session, removal: Removal, models: ModelRoots) -> list[int]:
    """Return the jobs, not ended, whose model is this one, whatever name they call it by."""
    live = select(Job.id, Job.model).where(Job.state.not_in(ENDED), Job.model.is_not(None))
    rows = session.execute(live.order_by(Job.id)).all()
    same = {name for name in {row.model for row in rows} if _means(models, name, removal)}
    return [row.id for row in rows if row.model in same]


def _means(models: ModelRoots, name: str, removal: Removal) -> bool:
    path = models.find(name)
    return path is not None and any(
        path == gone or path.is_relative_to(gone) for gone in removal.paths
    )


def _check_inside(removal: Removal, path: Path) -> None:
    """Refuse where a folder on the way is a link: what lies behind it has another name."""
    real = removal.root.resolve() / path.parent.relative_to(removal.root)
    if path.parent.resolve() != real:
        raise ForbiddenError(
            f"{path.parent} is a link, and {removal.name} is not removed through it",
            remedy=f"remove it by its own name; it lies in {path.parent.resolve()}",
        )


@contextmanager
def _write_errors(removal: Removal) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ForbiddenError(
            f"{removal.name} cannot be removed from {removal.root}: {error.strerror}",
            remedy="remove it as the owner of that folder; the daemon can only read it",
        ) from None
