"""Routes of files: uploads, logs, streamed text, artifacts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from daemon import filestore
from daemon.access import Person
from daemon.api.answers import Json, disk_error
from daemon.api.jobs import MAX_WAIT, readable
from daemon.api.ranges import Part, file_answer, parse_range, unsatisfied
from daemon.api.service import Asker, JobNumber, Service, Services
from daemon.api.watch import Ended
from daemon.defaults import SPARE_DISK
from daemon.errors import NotFoundError, RangeError, TooLargeError, UsageError
from daemon.ledger import details, queries
from daemon.ledger.uploads import add_upload, has_uploaded, unused_bytes
from daemon.ledger.users import ensure_user
from daemon.submission import ledger_user

router = APIRouter()

# Bytes that are hashed and written at once, and seconds between two looks at a growing log.
_PIECE = 2**20
_LOOK_EVERY = 0.1

Wait = Annotated[float, Query(ge=0, allow_inf_nan=False)]


@router.head("/blobs/{sha256}")
def has_blob(sha256: str, service: Services, person: Asker) -> Response:
    """Answer whether this user has brought this content."""
    filestore.check_sha256(sha256)

    def brought(session: Session) -> bool:
        user = ledger_user(session, person)
        return has_uploaded(session, user_id=user, sha256=sha256)

    there = service.read(brought) and service.store.path(sha256).exists()
    return Response(status_code=HTTPStatus.OK if there else HTTPStatus.NOT_FOUND)


@router.put("/blobs/{sha256}")
async def put_blob(request: Request, sha256: str, service: Services, person: Asker) -> Json:
    """Take a file, hashing it as it comes."""
    filestore.check_sha256(sha256)
    share = await asyncio.to_thread(_share_left, service, person, sha256)
    share.check(_announced(request))
    try:
        service.store.check_space(_announced(request), spare=SPARE_DISK)
        with service.store.begin(spare=SPARE_DISK) as part:
            await _receive(request, part, share)
            await asyncio.to_thread(part.finish, sha256)
            await service.write(partial(_keep, service, person, part, sha256))
    except OSError as error:
        raise disk_error(error, "the upload") or error from None
    except ClientDisconnect:
        raise UsageError("the upload was broken off; nothing is kept of it") from None
    return Json({"sha256": sha256, "bytes": part.bytes}, status_code=HTTPStatus.CREATED)


def _announced(request: Request) -> int:
    """Return the size that the client announces, 0 if it does not."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0


@dataclass(frozen=True, kw_only=True)
class _Share:
    """What one file may have: ``most`` bytes, ``unused`` of which the user's other files have."""

    most: int
    unused: int

    def check(self, size: int) -> None:
        """Refuse a file of ``size`` bytes or more.

        Raises:
            TooLargeError: says which bound it passes.
        """
        if size > self.most:
            raise TooLargeError(
                f"the file has at least {size:,} bytes; this daemon takes files of at most "
                f"{self.most:,}",
                remedy="ask an admin to raise max_upload_bytes in the daemon's config.toml",
            )
        if self.unused + size > self.most:
            raise TooLargeError(
                f"your uploads that no job uses have {self.unused / 1e6:,.0f} MB already; with "
                f"this file they would pass the {self.most / 1e6:,.0f} MB that one user may have",
                remedy="they are forgotten after a day; or submit the jobs that they are for",
            )


def _share_left(service: Service, person: Person, sha256: str) -> _Share:
    unused = service.read(
        lambda session: unused_bytes(session, ledger_user(session, person), besides=sha256)
    )
    return _Share(most=service.config.max_upload_bytes, unused=unused)


async def _receive(request: Request, part: filestore.Part, share: _Share) -> None:
    """Write the body in pieces that are worth a thread's while."""
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        share.check(part.bytes + len(piece))
        if len(piece) >= _PIECE:
            await asyncio.to_thread(part.write, piece)
            piece = bytearray()
    await asyncio.to_thread(part.write, piece)


def _keep(
    service: Service, person: Person, part: filestore.Part, sha256: str, session: Session
) -> None:
    """Name the file and record whose it is. In the writer, so that no deletion comes between."""
    now = service.clock()
    user = ensure_user(session, uid=person.uid, name=person.name, now=now)
    service.store.adopt(part, sha256)
    add_upload(session, user_id=user.id, sha256=sha256, size=part.bytes, now=now)


@router.get("/jobs/{number}/log")
async def read_log(
    request: Request, number: JobNumber, service: Services, person: Asker, wait: Wait = 0.0
) -> Response:
    """Answer a part of the job's log, as soon as there is any."""
    return await _growing(request, service.paths.log(number), number, service, person, wait)


@router.get("/jobs/{number}/text")
async def read_text(
    request: Request, number: JobNumber, service: Services, person: Asker, wait: Wait = 0.0
) -> Response:
    """Answer a part of the text that the job generates, as soon as there is any."""
    return await _growing(request, service.paths.text(number), number, service, person, wait)


async def _growing(
    request: Request, path: Path, number: int, service: Service, person: Person, wait: float
) -> Response:
    """Answer a part of a file that may still grow.

    The state is read before the file, so that an ended state says that the file is complete.
    """
    header = request.headers.get("range")
    tail = _Tail(path=path, header=header, deadline=time.monotonic() + min(wait, MAX_WAIT))
    with service.watch.job(number) as ended:
        while True:
            job = await asyncio.to_thread(
                service.read, partial(readable, number=number, person=person)
            )
            if tail.has_news() or job.ended or tail.is_late() or service.watch.closing:
                break
            await tail.wait_for_news(ended)
    return tail.answer(job)


@dataclass(frozen=True, kw_only=True)
class _Tail:
    """The end of a growing file that a ``Range`` header asks for."""

    path: Path
    header: str | None
    deadline: float

    def size(self) -> int:
        """Return the file's size, 0 while it does not exist."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def part(self) -> Part:
        """Return the bytes that the header asks for.

        Raises:
            RangeError: they begin behind the end.
        """
        size = self.size()
        return parse_range(self.header, size) or Part(start=0, stop=size, size=size)

    def has_news(self) -> bool:
        """Return whether there is something to send (an error counts)."""
        try:
            part = self.part()
        except RangeError:
            return True
        return part.stop > part.start

    def is_late(self) -> bool:
        """Return whether the time is up."""
        return time.monotonic() >= self.deadline

    async def wait_for_news(self, ended: Ended) -> None:
        """Return when there are bytes, the job has ended, or the time is up."""
        while not (self.has_news() or ended.is_set or self.is_late()):
            await ended.wait(min(_LOOK_EVERY, max(0.0, self.deadline - time.monotonic())))

    def answer(self, job: queries.Standing) -> Response:
        """Return the bytes, or 204 where there are none."""
        headers = {"Studioq-Job-State": job.state, "Cache-Control": "no-store"}
        try:
            part = self.part()
        except RangeError as error:
            return unsatisfied(error, self.size(), headers)
        if part.start == part.stop:
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)
        return file_answer(
            self.path, range_header=self.header, media_type="text/plain", headers=headers
        )


@router.get("/jobs/{number}/artifacts/{name:path}")
async def read_artifact(
    request: Request, number: JobNumber, name: str, service: Services, person: Asker
) -> Response:
    """Answer one of the job's files."""
    file = await asyncio.to_thread(service.read, partial(_find, number, name, person))
    folder = service.paths.attempt(number, file["attempt"])
    etag = f'"{file["sha256"]}"'
    headers = {
        "ETag": etag,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(Path(name).name)}",
        "X-Content-Type-Options": "nosniff",
    }
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    range_header = request.headers.get("range")
    if request.headers.get("if-range", etag) != etag:
        range_header = None
    return file_answer(
        _inside(folder, name),
        range_header=range_header,
        media_type="application/octet-stream",
        headers=headers,
    )


def _find(number: int, name: str, person: Person, session: Session) -> dict[str, Any]:
    readable(session, number, person)
    return details.find_artifact(session, number, name)


def _inside(folder: Path, name: str) -> Path:
    """Return the file ``name`` of an attempt's folder; the ledger's names lead nowhere else."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise NotFoundError(f"the artifact {name!r} is not inside its job's folder")
    return path
