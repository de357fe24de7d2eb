"""Conversions before they are queued: the name that is to be written, and the model it comes from.

The rule this module protects: a conversion writes over nothing, and two that wait never write the
same model. What is found here is found early; the engine, which writes, looks again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon import quantised
from daemon.access import Person
from daemon.errors import ModelError, SpecRefusedError
from daemon.ledger.states import ENDED, JobState
from daemon.ledger.tables import Job, User
from daemon.models import ModelRoots
from daemon.regular_files import read_regular
from daemon.specs import ConvertSpec
from daemon.targets import target_folder, user_folder

KIND = "convert"

# What a conversion writes beside the model that it has made.
CONVERSION = "conversion.json"
_MOST_CONVERSION = 2**20
_MOST_COPIES = 8

_LIVE = frozenset(JobState) - ENDED


def model_name(person: Person, spec: ConvertSpec) -> str:
    """Return what the model will be called that ``person`` has made."""
    return f"{user_folder(person.name, person.uid)}/{spec.to}"


def check_target(
    person: Person, spec: ConvertSpec, models: ModelRoots, *, repeats: int | None = None
) -> None:
    """Refuse the name of something that is there, under whichever root.

    ``repeats``: the job that is repeated, whose options cannot be changed.

    Raises:
        SpecRefusedError: names the path and what to do.
    """
    name = model_name(person, spec)
    folder = target_folder(models.roots[0], user=person.name, uid=person.uid, to=spec.to)
    _check_parent(spec, folder.parent, models.roots[0])
    model = models.find(name)
    there = model or _something(folder)
    if there is not None:
        away = f"studioq models rm {name}" if model else f"move {there} away"
        raise SpecRefusedError(
            f"to = {spec.to!r}: {name} is there already, at {there}, and nothing is written over",
            field="to",
            remedy=f"choose another --to, or remove it first: {away}"
            if repeats is None
            else f"remove it first: {away}; or submit job {repeats} anew, with another --to",
        )


def _something(path: Path) -> Path | None:
    """Return the path if it has anything at all, a file or a broken link too."""
    return path if path.exists() or path.is_symlink() else None


def _check_parent(spec: ConvertSpec, parent: Path, root: Path) -> None:
    """Refuse where the user's folder is none, or leads out of the root: nobody would find it."""
    if _something(parent) is None:
        return
    if parent.is_dir() and parent.resolve().is_relative_to(root.resolve()):
        return
    raise SpecRefusedError(
        f"to = {spec.to!r}: the model would be written into {parent}, which is no folder under the "
        "model root",
        field="to",
        remedy=f"ask whoever looks after this daemon to move {parent} away",
    )


@dataclass(frozen=True, kw_only=True)
class MadeFrom:
    """What a model says of its making: the job and the source; ``fused``: an adapter is in it."""

    job: int | None = None
    source: str | None = None
    fused: bool = False


def made_from(path: Path) -> MadeFrom:
    """Return what the model at ``path`` was made from; nothing of one that no conversion made."""
    try:
        found = json.loads(read_regular(path / CONVERSION, most=_MOST_CONVERSION))
        job, source, spec = found["job"], found["source"], found["spec"]
        return MadeFrom(
            job=job if isinstance(job, int) else None,
            source=source if isinstance(source, str) else None,
            fused=spec["fuse"] is not None,
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return MadeFrom()


def is_copy(models: ModelRoots, name: str | None, of: str | None) -> bool:
    """Return whether the model ``name`` is a copy of another one, perhaps in other numbers.

    Adapters that were trained on the one fit the other. Copies of copies count.
    """
    for _ in range(_MOST_COPIES):
        path = models.find(name) if name is not None else None
        made = MadeFrom() if path is None else made_from(path)
        if made.source is None or made.fused:
            return False
        if made.source == of:
            return True
        name = made.source
    return False


def check_unclaimed(session: Session, spec: ConvertSpec, user_id: int) -> None:
    """Refuse the name that another job of the user, which has not ended, will write.

    Raises:
        SpecRefusedError: names that job.
    """
    for job in _live_conversions(session, user_id):
        if _same(job.spec.get("to"), spec.to):
            raise SpecRefusedError(
                f"to = {spec.to!r}: job {job.id}, which is {job.state}, writes that model",
                field="to",
                remedy=f"choose another --to, or end that job: studioq cancel {job.id}",
            )


def check_source(spec: ConvertSpec, path: Path) -> None:
    """Refuse what the files of the source, at ``path``, speak against.

    Raises:
        SpecRefusedError: names the option, its value and what to do.
    """
    try:
        quantised.check_source(spec, path)
    except ModelError as error:
        field = error.field or "model"
        raise SpecRefusedError(
            f"{field} = {getattr(spec, field)!r}: {error.message}",
            field=field,
            remedy=error.remedy,
        ) from None


def has_made_it(job: Job, user_id: int) -> bool:
    """Return whether what ``job`` was to write for this user is there because it has written it.

    The job that repeats it makes the same model and is compared with that one.
    """
    return job.kind == KIND and job.state == JobState.SUCCEEDED and job.user_id == user_id


def makers(session: Session, name: str) -> list[int]:
    """Return the jobs, not ended, that will write the model ``name``."""
    owner, _, to = name.partition("/")
    rows = session.execute(
        select(Job, User.name, User.uid)
        .join(User, User.id == Job.user_id)
        .where(Job.kind == KIND, Job.state.in_(_LIVE))
    )
    return [
        job.id
        for job, user, uid in rows
        if user_folder(user, uid) == owner and job.spec.get("to") == to
    ]


def _live_conversions(session: Session, user_id: int) -> list[Job]:
    found = select(Job).where(Job.user_id == user_id, Job.kind == KIND, Job.state.in_(_LIVE))
    return list(session.scalars(found.order_by(Job.id)))


def _same(first: object, second: str) -> bool:
    """Return whether two names could be one on a disk that keeps no case, as macOS's do."""
    return isinstance(first, str) and first.casefold() == second.casefold()
