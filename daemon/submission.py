"""From a request to a job: everything that can be wrong is found before anything is written.

The rule it protects: what is in the ledger can run. Fields, rights, cited files, jobs that are
built on, the model, every row of the data and every picture are checked here, and a refusal names
the field, the value and the way out. The slow checks run in the caller's thread; ``Draft.write``
alone touches the ledger, inside the writer.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon import conversions, references, rows
from daemon.access import Person, require_change, require_priority
from daemon.adapter_fit import check_uploaded_adapter
from daemon.defaults import PRIORITIES
from daemon.errors import ModelError, SpecRefusedError, UsageError
from daemon.filestore import FileStore
from daemon.ledger import jobs, queries
from daemon.ledger.downloads import request_download
from daemon.ledger.jobs import NewJob, Submitted
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Job, User
from daemon.ledger.uploads import has_uploaded, inputs_of
from daemon.ledger.users import ensure_user
from daemon.locate import Paths
from daemon.lora_files import check_loras
from daemon.model_kinds import check_fetched_later, check_model
from daemon.models import ModelRoots, is_bundled, is_hub_id
from daemon.picture_options import check_steps, notes
from daemon.pictures import check_pictures
from daemon.specs import (
    TEST_KINDS,
    ConvertSpec,
    DiffuseSpec,
    InferSpec,
    JobRequest,
    Spec,
    TrainSpec,
    load_spec,
    parse_request,
    parse_spec,
)
from daemon.targets import user_folder

Inputs = Mapping[str, tuple[str, str]]

_PUT_OR_NAME = (
    "put its folder there, or name a Hugging Face id (org/name); studioq models lists what there is"
)
_NOT_FETCHED = (
    "studioq models lists what there is; names that begin with a user of this daemon are not "
    "looked for on Hugging Face"
)

# The last second that a date of four digits can name.
_LAST_TIME = 253_402_300_799.0


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A checked submission that only waits to be written; ``notes`` are for the submitter."""

    person: Person
    job: NewJob
    spec: Spec
    notes: tuple[str, ...] = ()

    def write(self, session: Session, *, now: float) -> Submitted:
        """Write the job; what could change since the checks is looked at again.

        Raises:
            SpecRefusedError: a cited file has meanwhile expired, or another job has taken the name
                of the model that this one makes.
        """
        user = ensure_user(session, uid=self.person.uid, name=self.person.name, now=now)
        _check_uploads(session, self.job.inputs, user.id)
        if isinstance(self.spec, ConvertSpec):
            conversions.check_unclaimed(session, self.spec, user.id)
        if self.job.needs_download and self.job.model is not None:
            request_download(session, self.job.model, now=now)
        new = replace(self.job, user_id=user.id)
        return jobs.submit(session, new, actor=self.person.name, now=now)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where submissions are checked: knows the ledger, the files and the models."""

    ledger: Ledger
    paths: Paths
    models: ModelRoots
    clock: Callable[[], float] = time.time

    def check(self, person: Person, body: object) -> Draft:
        """Check a submission from the wire.

        Raises:
            SpecRefusedError: names the field, its value and what is allowed.
            ForbiddenError: the priority is not the person's to choose.
        """
        request = parse_request(body)
        spec = parse_spec(request.kind, request.spec)
        require_priority(person, request.priority)
        _check_times(request)
        inputs = _inputs_of_spec(spec)
        after: set[int] = set(request.after)
        if after or inputs or spec.job_references():
            after |= self._check_ledger(person, spec, inputs, after)
        missing, makers = self._missing_model(person, request.kind, spec)
        after |= makers
        if isinstance(spec, ConvertSpec):
            conversions.check_target(person, spec, self.models)
        self._check_files(spec, inputs)
        job = _new_job(request, spec)
        return Draft(
            person=person,
            job=replace(job, inputs=inputs, after=sorted(after), needs_download=missing),
            spec=spec,
            notes=self._check_options(person, spec),
        )

    def _check_ledger(
        self, person: Person, spec: Spec, inputs: Inputs, after: Collection[int]
    ) -> set[int]:
        """Check what the ledger knows of; return the jobs that the spec needs first."""
        with self.ledger.reading() as session:
            user_id = ledger_user(session, person)
            _check_uploads(session, inputs, user_id)
            references.check_needed(session, after)
            return set(self._check_references(session, spec, user_id, admin=person.admin))

    def _check_references(
        self, session: Session, spec: Spec, user_id: int, *, admin: bool
    ) -> list[int]:
        is_copy = partial(conversions.is_copy, self.models)
        return references.check(session, self.paths, spec, user_id, admin=admin, is_copy=is_copy)

    def check_repeat(self, person: Person, number: int) -> Draft:
        """Check that the recorded spec of job ``number`` can be queued as a new job.

        Raises:
            ForbiddenError: the job is somebody else's.
        """
        with self.ledger.reading() as session:
            old = jobs.get_job(session, number)
            owner = queries.standing(session, number)
            require_change(person, owner.owner_uid, job=number, owner=owner.owner)
            user_id = ledger_user(session, person)
            inputs = inputs_of(session, number)
            _check_uploads(session, inputs, user_id)
            spec = load_spec(old.kind, old.spec)
            implied = self._check_references(session, spec, user_id, admin=person.admin)
            made = conversions.has_made_it(old, user_id)
        missing, makers = self._missing_model(person, old.kind, spec)
        if isinstance(spec, ConvertSpec) and not made:
            conversions.check_target(person, spec, self.models, repeats=number)
        return Draft(
            person=person,
            job=replace(
                _repeated(old),
                inputs=inputs,
                after=sorted(makers.union(implied)),
                needs_download=missing,
            ),
            spec=spec,
            notes=self._check_options(person, spec),
        )

    def _missing_model(self, person: Person, kind: str, spec: Spec) -> tuple[bool, set[int]]:
        """Return whether the model must be fetched first, and the jobs that will make it.

        One that neither is there nor can come is refused.
        """
        name = getattr(spec, "model", None)
        if name is None or kind in TEST_KINDS:
            return False, set()
        path = self.models.find(name)
        with _refusals_of(name):
            if path is None:
                self.models.check_links(name)
                check_fetched_later(kind, name, self.models)
            else:
                check_model(kind, name, path, self.models)
        if path is not None:
            return False, set()
        with self.ledger.reading() as session:
            makers = set(conversions.makers(session, name))
            if not makers and name.partition("/")[0] in _people(session, person):
                raise _unknown_model(name, self.models, remedy=_NOT_FETCHED)
        if makers or is_bundled(name) or is_hub_id(name):
            return not makers, makers
        raise _unknown_model(name, self.models)

    def _check_files(self, spec: Spec, inputs: Inputs) -> None:
        """Look at every uploaded file: each row of data, the header of a picture or adapter."""
        store = FileStore(self.paths.blobs)
        files = {place: (name, store.path(sha256)) for place, (name, sha256) in inputs.items()}
        if isinstance(spec, TrainSpec):
            rows.check_training_data(_places(files, "data."), spec)
        elif isinstance(spec, InferSpec):
            if "prompts" in files:
                rows.check_prompts(*files["prompts"])
            self._check_adapter(files, "adapter", spec.model)
        elif isinstance(spec, ConvertSpec):
            self._check_adapter(files, "fuse", spec.model)
        elif isinstance(spec, DiffuseSpec):
            check_pictures(files, spec)
            check_loras(files)

    def _check_adapter(self, files: Mapping[str, tuple[str, Path]], field: str, model: str) -> None:
        check_uploaded_adapter(files, field, model, self.models.find(model))

    def _check_options(self, person: Person, spec: Spec) -> tuple[str, ...]:
        """Refuse options that do not go with the model; return what is to be said of others."""
        if not isinstance(spec, ConvertSpec | DiffuseSpec):
            return ()
        model = self.models.find(spec.model)
        if isinstance(spec, ConvertSpec):
            if model is not None:
                conversions.check_source(spec, model)
            return (f"the model will be called {conversions.model_name(person, spec)}",)
        if model is not None:
            check_steps(spec, model)
        return notes(spec, model)


@contextmanager
def _refusals_of(model: str) -> Iterator[None]:
    """Turn what is wrong with a model into a refusal of the spec's field."""
    try:
        yield
    except ModelError as error:
        raise SpecRefusedError(
            f"model = {model!r}: {error.message.removeprefix(f'{model}: ')}",
            field="model",
            remedy=error.remedy,
        ) from None


def _places(files: Mapping[str, tuple[str, Path]], prefix: str) -> dict[str, tuple[str, Path]]:
    return {place: file for place, file in files.items() if place.startswith(prefix)}


def ledger_user(session: Session, person: Person) -> int:
    """Return the ledger's number of this person, 0 for somebody it does not know yet."""
    return session.scalar(select(User.id).where(User.uid == person.uid)) or 0


def _inputs_of_spec(spec: Spec) -> Inputs:
    return {place: (file.name, file.sha256) for place, file in spec.input_files().items()}


def _check_uploads(session: Session, inputs: Inputs, user_id: int) -> None:
    """Refuse a file that this user has not uploaded, whoever else may have."""
    for place, (name, sha256) in inputs.items():
        if not has_uploaded(session, user_id=user_id, sha256=sha256):
            raise SpecRefusedError(
                f"{place}: you have not uploaded {name} (SHA-256 {sha256[:12]}…)",
                field=place,
                remedy=f"send it first: PUT /blobs/{sha256}",
            )


def _check_times(request: JobRequest) -> None:
    if request.begin_at is not None and not 0 <= request.begin_at <= _LAST_TIME:
        raise SpecRefusedError(
            f"begin_at = {request.begin_at:g} is no time: seconds since 1970, at most "
            f"{_LAST_TIME:.0f}",
            field="begin_at",
        )


def _new_job(request: JobRequest, spec: Spec) -> NewJob:
    """Return the job but for its user, whose number is known when it is written."""
    recorded: dict[str, Any] = spec.model_dump(mode="json")
    return NewJob(
        user_id=0,
        kind=request.kind,
        spec=recorded,
        model=recorded.get("model"),
        name=request.name,
        priority=PRIORITIES[request.priority],
        hold=request.hold,
        begin_at=request.begin_at,
        time_limit_seconds=request.time_limit_seconds,
        retries=request.retries,
        share=request.share,
    )


def _repeated(old: Job) -> NewJob:
    """Return the same job again, at normal priority at most and without waiting for a time."""
    return NewJob(
        user_id=0,
        kind=old.kind,
        spec=old.spec,
        model=old.model,
        name=old.name,
        priority=min(old.priority, PRIORITIES["normal"]),
        time_limit_seconds=old.time_limit_seconds,
        share=old.share,
        repeats_id=old.id,
    )


def _people(session: Session, person: Person) -> set[str]:
    """Return what this person's folder of models is called, and those of all users."""
    known = session.execute(select(User.name, User.uid)).all()
    return {user_folder(name, uid) for name, uid in [*known, (person.name, person.uid)]}


def _unknown_model(
    name: str, models: ModelRoots, *, remedy: str = _PUT_OR_NAME
) -> SpecRefusedError:
    known = [entry.name for entry in models.list()]
    near = difflib.get_close_matches(name, sorted({*known, "smollm2"}), n=3)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    looked = ", ".join(str(root) for root in models.roots)
    return SpecRefusedError(
        f"model = {name!r}: there is no such model in {looked}{meant}",
        field="model",
        remedy=remedy,
    )


def check_level(level: object) -> str:
    """Return a priority's name.

    Raises:
        UsageError: there is none of that name.
    """
    if not isinstance(level, str) or level not in PRIORITIES:
        raise UsageError(
            f"level = {str(level)[:80]!r}: there is no such priority",
            field="level",
            remedy=f"one of: {', '.join(PRIORITIES)}",
        )
    return level
