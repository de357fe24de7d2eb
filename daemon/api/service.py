"""What the routes work with, and who is asking.

The rule it protects: a route reads in a thread, writes through the one writer, and tells Redis
afterwards; none of them opens a connection of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar, cast

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from daemon.access import People, Person
from daemon.api.peer import PEER
from daemon.api.watch import JobWatch
from daemon.config import Config
from daemon.errors import NotFoundError
from daemon.filestore import FileStore
from daemon.ledger.jobs import Submitted
from daemon.ledger.states import JobState
from daemon.ledger.store import Ledger
from daemon.ledger.writer import Writer
from daemon.locate import Paths
from daemon.models import ModelRoots
from daemon.references import MAX_NUMBER
from daemon.submission import Desk

T = TypeVar("T")


class Announcer(Protocol):
    """Tells Redis, soon and in the background."""

    def announce(self, *dispatches: tuple[int, int]) -> None:
        """Queue these (job, dispatch) pairs; none of them: only wake the worker."""


class Downloads(Protocol):
    """Fetches models while jobs wait for them."""

    def remember(self, model: str, token: str, *, owner: int) -> None:
        """Keep the token of the user ``owner`` (a uid) for the download of ``model``."""

    def look(self) -> None:
        """Look soon for what is to be fetched."""


class Processes(Protocol):
    """The processes beside the daemon."""

    def status(self) -> dict[str, Any]:
        """Return the state of ``redis`` and ``worker``."""

    def begin_shutdown(self, *, worker: bool, drain: bool, by: str) -> None:
        """Begin to end the daemon and what else was asked; ``by`` says who asked."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """All that the routes need."""

    paths: Paths
    config: Config
    ledger: Ledger
    writer: Writer
    people: People
    watch: JobWatch
    desk: Desk
    store: FileStore
    models: ModelRoots
    announcer: Announcer
    downloads: Downloads
    processes: Processes
    clock: Callable[[], float]
    started_at: float

    async def write(self, change: Callable[[Session], T]) -> T:
        """Run ``change`` in the writer and return its result after the commit."""
        return await asyncio.wrap_future(self.writer.submit(change))

    async def write_job(self, change: Callable[[Session], Submitted]) -> Submitted:
        """Run ``change``; tell Redis in the moment of the commit if it has queued the job."""
        future = self.writer.submit(change)
        future.add_done_callback(self._announce)
        return await asyncio.wrap_future(future)

    def _announce(self, future: Future[Submitted]) -> None:
        if not future.cancelled() and future.exception() is None:
            job = future.result()
            if job.state == JobState.QUEUED:
                self.announcer.announce((job.id, job.dispatch))

    def read(self, question: Callable[[Session], T]) -> T:
        """Return the answer of one consistent state of the ledger."""
        with self.ledger.reading() as session:
            return question(session)


async def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


async def _person(request: Request) -> Person:
    uid = request.scope["state"][PEER]
    return cast("Service", request.app.state.service).people.person(uid)


async def _number(number: str) -> int:
    """Return a job's number from the path; whatever is none names no job."""
    value = int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0
    if not 1 <= value <= MAX_NUMBER:
        raise NotFoundError(
            f"there is no job {number[:40]!r}", remedy="studioq list --all shows all jobs"
        )
    return value


Services = Annotated[Service, Depends(_service)]
Asker = Annotated[Person, Depends(_person)]
JobNumber = Annotated[int, Depends(_number)]
