"""Routes of the whole: status, schema, usage, drain and shutdown."""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session

from daemon import __version__, specs
from daemon.access import Person, require_admin
from daemon.api.answers import Json
from daemon.api.bodies import read_object
from daemon.api.service import Asker, Service, Services
from daemon.errors import UsageError
from daemon.ledger import details, queries
from daemon.ledger.revision import current_revision, is_draining, set_draining
from daemon.ledger.views import iso
from daemon.ledger.workers import latest_worker, what_engine_waits_for

router = APIRouter()

_NO_ENGINE: dict[str, Any] = {
    "state": "stopped",
    "pid": None,
    "device": None,
    "memory": {"active": None, "peak": None, "cache": None, "limit": None},
    "models": [],
    "reason": None,
}


@router.get("/status")
def show_status(service: Services, person: Asker) -> Json:
    """Answer how the daemon and its processes are."""
    status = service.processes.status()
    ledger = service.read(partial(_ledger_status, worker_pid=status["worker"]["pid"]))
    return Json(
        {
            "version": __version__,
            "pid": os.getpid(),
            "home": str(service.paths.home),
            "started_at": iso(service.started_at),
            "me": {"uid": person.uid, "name": person.name, "admin": person.admin},
            **status,
            **ledger,
        }
    )


def _ledger_status(session: Session, worker_pid: int | None) -> dict[str, Any]:
    worker = latest_worker(session)
    lives = worker is not None and worker.ended_at is None and worker.pid == worker_pid
    return {
        "revision": current_revision(session),
        "draining": is_draining(session),
        "engine": _NO_ENGINE | (_shown(session, worker.engine) if worker and lives else {}),
        "jobs": queries.job_counts(session),
    }


def _shown(session: Session, engine: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only identifies the process to us; say what to do about what it waits for."""
    told = {name: value for name, value in engine.items() if name != "started"}
    return told | {"reason": what_engine_waits_for(session) or engine.get("reason")}


@router.get("/schema")
def show_schema() -> Json:
    """Answer what a job of each kind may say."""
    return Json(specs.schema())


@router.get("/usage")
def show_usage(
    service: Services, since: Annotated[float, Query(allow_inf_nan=False)] = 0.0
) -> Json:
    """Answer who has used the GPU how much."""
    now = service.clock()
    users = service.read(lambda session: details.usage(session, since=since, now=now))
    return Json({"users": users})


@router.post("/drain")
async def drain(service: Services, person: Asker) -> Json:
    """Start no more jobs."""
    return await _set_draining(service, person, draining=True)


@router.post("/resume")
async def resume(service: Services, person: Asker) -> Json:
    """Start jobs again."""
    answer = await _set_draining(service, person, draining=False)
    service.announcer.announce()
    return answer


async def _set_draining(service: Service, person: Person, *, draining: bool) -> Json:
    require_admin(person, "draining the queue" if draining else "resuming the queue")
    await service.write(partial(set_draining, draining=draining))
    return Json({"draining": draining})


@router.post("/shutdown")
async def shut_down(request: Request, service: Services, person: Asker) -> Json:
    """Begin to end the daemon, and on request what it has started."""
    require_admin(person, "ending the daemon")
    body = await read_object(request)
    worker, drain_first = _flag(body, "worker"), _flag(body, "drain")
    asker = f"user {person.name} (uid {person.uid})"
    service.processes.begin_shutdown(worker=worker, drain=drain_first, by=asker)
    return Json({"worker": worker, "drain": drain_first}, status_code=HTTPStatus.ACCEPTED)


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise UsageError(f"{name} = {str(value)[:80]!r}: true or false", field=name)
    return value
