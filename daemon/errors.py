"""Every error that a user can meet, as one tree: what is wrong, with which value, and the remedy.

The code that turns an error into an exit status or an HTTP answer reads these classes and nothing
else, so a new error needs no second table. Standard library only: the thin client imports this.
"""

from __future__ import annotations

from enum import IntEnum
from http import HTTPStatus
from typing import Any


class ExitCode(IntEnum):
    """What the ``studioq`` process answers to its shell (the contract in docs/cli.md)."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    DAEMON_AWAY = 3
    NO_SUCH_JOB = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


class StudioqError(Exception):
    """Base of all errors that are meant for the user.

    ``message`` names the value and the reason, ``remedy`` the way out, ``field`` the offending
    field of a spec where there is one.
    """

    code = "error"
    exit_code = ExitCode.JOB_FAILED
    http_status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(
        self, message: str, *, field: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.remedy = remedy

    def to_dict(self) -> dict[str, Any]:
        """Return the error as it travels in JSON: code, message, field and remedy."""
        return {
            "code": self.code,
            "message": self.message,
            "field": self.field,
            "remedy": self.remedy,
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> StudioqError:
        """Rebuild the error that another process sent; an unknown code becomes the base class."""
        cls = _by_code(StudioqError).get(str(data.get("code")), StudioqError)
        error = cls(
            str(data.get("message") or "the other side sent an error without a message"),
            field=data.get("field"),
            remedy=data.get("remedy"),
        )
        error.code = str(data.get("code") or cls.code)
        return error


def _by_code(base: type[StudioqError]) -> dict[str, type[StudioqError]]:
    """Return every class of the tree below ``base`` by its code."""
    found = {base.code: base}
    for child in base.__subclasses__():
        found.update(_by_code(child))
    return found


class SpecRefusedError(StudioqError):
    """The job as described cannot run; nothing was queued."""

    code = "spec_refused"
    exit_code = ExitCode.USAGE
    http_status = HTTPStatus.UNPROCESSABLE_ENTITY


class UsageError(StudioqError):
    """The command line or request was not understood."""

    code = "usage"
    exit_code = ExitCode.USAGE
    http_status = HTTPStatus.BAD_REQUEST


class ConfigError(StudioqError):
    """A configuration file or environment variable holds a value that cannot be used."""

    code = "config"
    exit_code = ExitCode.USAGE


class NotFoundError(StudioqError):
    """There is no such job, file or model, or it belongs to somebody else."""

    code = "not_found"
    exit_code = ExitCode.NO_SUCH_JOB
    http_status = HTTPStatus.NOT_FOUND


class ForbiddenError(StudioqError):
    """The peer is known, and not allowed to do this."""

    code = "forbidden"
    exit_code = ExitCode.NO_SUCH_JOB
    http_status = HTTPStatus.FORBIDDEN


class ConflictError(StudioqError):
    """The job is in a state in which this cannot be done."""

    code = "conflict"
    exit_code = ExitCode.USAGE
    http_status = HTTPStatus.CONFLICT


class TooLargeError(StudioqError):
    """A request or file is larger than the daemon takes."""

    code = "too_large"
    exit_code = ExitCode.USAGE
    http_status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class RangeError(StudioqError):
    """A part of a file was asked for that lies behind its end."""

    code = "range"
    exit_code = ExitCode.USAGE
    http_status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE


class FileDiffersError(StudioqError):
    """A file on the user's disk has the name of a fetched one and other content."""

    code = "file_differs"
    exit_code = ExitCode.USAGE


class DaemonAwayError(StudioqError):
    """No daemon answers on the socket."""

    code = "daemon_away"
    exit_code = ExitCode.DAEMON_AWAY
    http_status = HTTPStatus.SERVICE_UNAVAILABLE


class WaitTimedOutError(StudioqError):
    """The job had not ended when ``--timeout`` passed; it goes on."""

    code = "wait_timed_out"
    exit_code = ExitCode.TIMED_OUT


class JobError(StudioqError):
    """A job that ran could not finish; the message stands in the ledger as the job's error."""

    code = "job_failed"


class NonFiniteError(JobError):
    """A loss, image or logit became NaN or infinite."""

    code = "non_finite"


class OutOfMemoryError(JobError):
    """The job needed more memory than the device has."""

    code = "out_of_memory"


class ModelError(JobError):
    """A model or adapter is missing, unreadable or of the wrong kind."""

    code = "model"


class DiskFullError(JobError):
    """A file could not be written because the disk is full."""

    code = "disk_full"
    http_status = HTTPStatus.INSUFFICIENT_STORAGE


class TimeLimitError(JobError):
    """The job ran longer than its time limit."""

    code = "timed_out"


class StaleAttemptError(StudioqError):
    """An attempt that is no longer the job's live one tried to write; it must stop."""

    code = "stale_attempt"
    http_status = HTTPStatus.CONFLICT
