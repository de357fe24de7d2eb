"""Routes of jobs: submitted, listed, shown, waited for, changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session

from daemon.access import Person, require_change, require_priority, require_read
from daemon.api.answers import Json
from daemon.api.bodies import read_json, read_object
from daemon.api.service import Asker, JobNumber, Service, Services
from daemon.defaults import PRIORITIES
from daemon.errors import UsageError
from daemon.ledger import details, jobs, queries
from daemon.ledger.jobs import Submitted
from daemon.ledger.states import JobState
from daemon.ledger.tables import Job
from daemon.references import MAX_NUMBER
from daemon.specs import SPECS
from daemon.submission import Draft, check_level

router = APIRouter()

MAX_LINES = 10_000
MAX_WAIT = 60.0
_UNTOLD = {"reason": None, "error": None}
HUB_TOKEN = "studioq-hub-token"  # noqa: S105 - a header's name

Act = Callable[..., Job]
Limit = Annotated[int, Query(ge=1, le=MAX_LINES)]
Revision = Annotated[int | None, Query(ge=0, le=MAX_NUMBER)]
Seconds = Annotated[float, Query(ge=0, allow_inf_nan=False)]


@router.post("/jobs")
async def submit_job(request: Request, service: Services, person: Asker) -> Json:
    """Check a submission, write it, and tell Redis."""
    body = await read_json(request)
    draft = await asyncio.to_thread(service.desk.check, person, body)
    return await _queue(service, draft, request)


@router.post("/jobs/{number}/repeat")
async def repeat_job(request: Request, number: JobNumber, service: Services, person: Asker) -> Json:
    """Queue the recorded spec of a job as a new one."""
    draft = await asyncio.to_thread(service.desk.check_repeat, person, number)
    return await _queue(service, draft, request)


async def _queue(service: Service, draft: Draft, request: Request) -> Json:
    def change(session: Session) -> Submitted:
        job = draft.write(session, now=service.clock())
        if draft.job.needs_download:
            _remember(service, request, draft.person, draft.job.model)
        return job

    job = await service.write_job(change)
    if draft.job.needs_download:
        service.downloads.look()
    return Json(_told(job) | {"notes": draft.notes}, status_code=HTTPStatus.CREATED)


def _remember(service: Service, request: Request, person: Person, model: str | None) -> None:
    """Keep the token of a person whose job, just written, waits for ``model``.

    In the writer: the download cannot begin before the commit, nor without the token after it.
    """
    token = request.headers.get(HUB_TOKEN)
    if model and token:
        service.downloads.remember(model, token, owner=person.uid)


def _told(job: Submitted) -> dict[str, Any]:
    return {"id": job.id, "state": job.state, "reason": job.reason}


@router.get("/jobs")
def list_jobs(
    service: Services,
    person: Asker,
    everything: Annotated[bool, Query(alias="all")] = False,
    user: str | None = None,
    state: str | None = None,
    kind: str | None = None,
    limit: Limit = 50,
    since: Revision = None,
) -> Json:
    """Answer the lines of the queue."""
    _check_word("state", state, [str(known) for known in JobState])
    _check_word("kind", kind, list(SPECS))
    wanted = queries.Filter(
        everything=everything, user=user, state=state, kind=kind, limit=limit, since=since
    )
    now = service.clock()
    return Json(service.read(lambda session: queries.list_jobs(session, person, wanted, now=now)))


def _check_word(name: str, word: str | None, known: list[str]) -> None:
    if word is not None and word not in known:
        raise UsageError(
            f"{name} = {word[:80]!r}: there is no such {name}",
            field=name,
            remedy=f"one of: {', '.join(known)}",
        )


@router.get("/jobs/{number}")
def show_job(number: JobNumber, service: Services, person: Asker) -> Json:
    """Answer everything about one job."""
    now = service.clock()
    return _read(
        service, number, person, lambda session: details.show_job(session, number, person, now=now)
    )


@router.get("/jobs/{number}/metrics")
def list_metrics(
    number: JobNumber,
    service: Services,
    person: Asker,
    after: Annotated[int, Query(ge=0, le=MAX_NUMBER)] = 0,
) -> Json:
    """Answer what the job measured."""
    return _read(
        service,
        number,
        person,
        lambda session: {"metrics": details.metrics_after(session, number, after)},
    )


@router.get("/jobs/{number}/events")
def list_events(number: JobNumber, service: Services, person: Asker) -> Json:
    """Answer the job's history."""
    return _read(
        service, number, person, lambda session: {"events": details.events_of(session, number)}
    )


@router.get("/jobs/{number}/artifacts")
def list_artifacts(number: JobNumber, service: Services, person: Asker) -> Json:
    """Answer the files that the job has made."""
    return _read(
        service, number, person, lambda session: {"artifacts": details.artifacts(session, number)}
    )


def _read(
    service: Service, number: int, person: Person, question: Callable[[Session], Any]
) -> Json:
    """Answer a question about a job to those who may read it."""

    def asked(session: Session) -> Any:
        readable(session, number, person)
        return question(session)

    return Json(service.read(asked))


def readable(session: Session, number: int, person: Person) -> queries.Standing:
    """Return the job's standing to those who may read it.

    Raises:
        ForbiddenError: the person may not.
    """
    job = queries.standing(session, number)
    require_read(person, job.owner_uid, shared=job.share, job=number, owner=job.owner)
    return job


@router.get("/jobs/{number}/wait")
async def wait_for_job(
    number: JobNumber, service: Services, person: Asker, timeout: Seconds = 25.0
) -> Json:
    """Answer when the job has ended or the time is up; everyone may know a job's state."""
    look = partial(service.read, partial(queries.standing, number=number))
    with service.watch.job(number) as ended:
        job = await asyncio.to_thread(look)
        if not job.ended and await ended.wait(min(timeout, MAX_WAIT)):
            job = await asyncio.to_thread(look)
    readable = person.may_read(job.owner_uid, shared=job.share)
    told = {"reason": job.reason, "error": job.error} if readable else _UNTOLD
    return Json({"id": number, "state": job.state, "ended": job.ended, **told})


@router.post("/jobs/{number}/cancel")
async def cancel_job(number: JobNumber, service: Services, person: Asker) -> Json:
    """Cancel a job, or ask for it when it runs."""
    answer = await _act(service, number, person, jobs.cancel)
    service.downloads.look()
    return answer


@router.post("/jobs/{number}/finish")
async def finish_job(number: JobNumber, service: Services, person: Asker) -> Json:
    """Ask a running job to end with what it has."""
    return await _act(service, number, person, jobs.finish)


@router.post("/jobs/{number}/hold")
async def hold_job(number: JobNumber, service: Services, person: Asker) -> Json:
    """Keep a job from starting."""
    return await _act(service, number, person, jobs.hold)


@router.post("/jobs/{number}/release")
async def release_job(number: JobNumber, service: Services, person: Asker) -> Json:
    """Let a held job start."""
    return await _act(service, number, person, jobs.release)


@router.post("/jobs/{number}/retry")
async def retry_job(request: Request, number: JobNumber, service: Services, person: Asker) -> Json:
    """Queue an ended job again."""

    def retry(session: Session, number: int, *, actor: str, now: float) -> Job:
        job = jobs.retry(session, number, actor=actor, now=now)
        if job.needs_download:
            _remember(service, request, person, job.model)
        return job

    answer = await _act(service, number, person, retry)
    service.downloads.look()
    return answer


@router.post("/jobs/{number}/priority")
async def set_priority(
    request: Request, number: JobNumber, service: Services, person: Asker
) -> Json:
    """Give a job another priority."""
    level = check_level((await read_object(request)).get("level"))
    require_priority(person, level)
    return await _act(
        service, number, person, partial(jobs.set_priority, priority=PRIORITIES[level])
    )


async def _act(service: Service, number: int, person: Person, act: Act) -> Json:
    """Let the owner or an admin change a job."""

    def change(session: Session) -> Submitted:
        owner = queries.standing(session, number)
        require_change(person, owner.owner_uid, job=number, owner=owner.owner)
        job = act(session, number, actor=person.name, now=service.clock())
        return Submitted.of(job)

    return Json(_told(await service.write_job(change)))
