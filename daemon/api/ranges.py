"""Parts of files as answers: ``Range`` in, 206 out, read in pieces.

The rule it protects: a file of any size costs one piece of memory. The file is open before the
answer begins, so that what cannot be read is an error and not a broken answer.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.responses import Response, StreamingResponse

from daemon.api.answers import error_answer
from daemon.errors import NotFoundError, RangeError

PIECE = 512 * 1024

# No file, or a link where a file was: the latter is not followed.
_NOT_THERE = frozenset({errno.ENOENT, errno.ELOOP})

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Bytes ``start`` to ``stop`` (exclusive) of a file of ``size`` bytes."""

    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str:
        """The header that names the part; ``bytes */SIZE`` if it is empty."""
        if self.start == self.stop:
            return f"bytes */{self.size}"
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> Part | None:
    """Return the part that a ``Range`` header asks for (RFC 9110, 14.2); None for the whole file.

    A header of another unit or of several parts is ignored, as the standard allows. A part that
    begins at the end is empty here: a follower of a growing file asks for it.

    Raises:
        RangeError: the part begins behind the end.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:
        return Part(start=max(0, size - int(last)), stop=size, size=size)
    start = int(first)
    stop = min(size, int(last) + 1) if last else size
    if last and int(last) < start:
        return None
    if start > size:
        raise RangeError(
            f"byte {start} is behind the end of the file, which has {size} bytes",
            remedy="the file may have been begun anew: read it from byte 0",
        )
    return Part(start=start, stop=max(start, stop), size=size)


def file_answer(
    path: Path, *, range_header: str | None, media_type: str, headers: Mapping[str, str]
) -> Response:
    """Return the file, or the part of it that ``range_header`` asks for.

    Raises:
        NotFoundError: the file is not there.
    """
    file = _open(path)
    size = os.fstat(file.fileno()).st_size
    try:
        part = parse_range(range_header, size)
    except RangeError as error:
        file.close()
        return unsatisfied(error, size, headers)
    whole = part or Part(start=0, stop=size, size=size)
    sent = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(whole.stop - whole.start)}
    if part is not None:
        sent["Content-Range"] = part.content_range
    return StreamingResponse(
        _pieces(file, whole),
        status_code=HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT,
        media_type=media_type,
        headers=sent,
    )


def unsatisfied(error: RangeError, size: int, headers: Mapping[str, str]) -> Response:
    """Return 416 with the size of the file."""
    return error_answer(error, {**headers, "Content-Range": f"bytes */{size}"})


def _open(path: Path) -> io.FileIO:
    try:
        return io.FileIO(path, opener=_no_link)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        raise NotFoundError(
            f"the file {path.name} is gone from the daemon's disk",
            remedy="studioq repeat makes it again",
        ) from None


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


async def _pieces(file: io.FileIO, part: Part) -> AsyncIterator[bytes]:
    """Yield the part and close the file, also if nobody listens any more."""
    offset = part.start
    with file:
        while offset < part.stop:
            wanted = min(PIECE, part.stop - offset)
            piece = await asyncio.to_thread(os.pread, file.fileno(), wanted, offset)
            if not piece:
                raise EOFError(f"a file shrank to {offset} bytes while it was sent")
            offset += len(piece)
            yield piece
