"""Answers as JSON, and every error in one shape.

The rule it protects: whatever goes wrong, the client gets ``{"error": {code, message, field,
remedy}}`` with the status of the error's class; a traceback goes to the log and nowhere else.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from daemon.errors import DiskFullError, StudioqError, UsageError


class InternalError(StudioqError):
    """The daemon met something that its authors did not think of."""

    code = "internal"


class Json(Response):
    """A JSON answer; ASCII only, so that no text in the ledger can make it fail."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write ``content`` as JSON."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_answer(error: StudioqError, headers: Mapping[str, str] | None = None) -> Json:
    """Return the answer that carries ``error``."""
    return Json({"error": error.to_dict()}, status_code=int(error.http_status), headers=headers)


def disk_error(error: OSError, what: str) -> StudioqError | None:
    """Return the user's error if ``error`` says that the disk or the quota is full."""
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return None
    return DiskFullError(
        f"the daemon's disk is full: {what} could not be written",
        remedy="free space on it, or ask an admin of this daemon",
    )


def install_error_handlers(app: FastAPI) -> None:
    """Give every kind of exception its answer."""
    app.add_exception_handler(StudioqError, _studioq_error)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _system_error)
    app.add_exception_handler(Exception, _unexpected)


async def _studioq_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StudioqError)  # noqa: S101 - registered for this class
    return error_answer(error)


async def _bad_parameter(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    first = error.errors()[0]
    name = str(first["loc"][-1])
    shown = ascii(first.get("input"))[:80]
    return error_answer(UsageError(f"{name} = {shown}: {first['msg']}", field=name))


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer what the router refused: an unknown path or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    found = UsageError(f"{request.method} {request.url.path}: {error.detail}")
    found.http_status = HTTPStatus(error.status_code)
    return error_answer(found, error.headers)


async def _system_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)  # noqa: S101 - registered for this class
    full = disk_error(error, f"the data of {request.method} {request.url.path}")
    if full is None:
        raise error
    return error_answer(full)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    """Answer the status; the server logs the traceback after this."""
    return error_answer(
        InternalError(
            "the daemon failed in a way it did not expect",
            remedy="its log has the details: logs/daemon.log in its home",
        )
    )
