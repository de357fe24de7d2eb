"""The RQ job: a number, and nothing that data from Redis could make happen.

The rule this module protects: a job hash is read as data and believed in nothing but its id. The
serializer is JSON whatever is asked, there is one function, and every field of RQ's that imports,
calls, fetches or unpickles something by a name found in Redis is never read.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import rq.job
from redis import Redis
from rq.exceptions import DeserializationError
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import str_to_date

from daemon import defaults
from daemon.errors import StudioqError

# Bytes: the most that a field of a job hash may have, before and after it is decompressed.
MAX_FIELD = 4096

# The longest job and dispatch numbers that are read, digits; SQLite's integers have 19.
_ID = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,17})-([1-9][0-9]{0,17})")


class MalformedJobError(StudioqError, DeserializationError):  # type: ignore[misc]
    """A job in Redis is not one that studioq wrote."""

    code = "malformed_job"


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """One queueing of a job: a job that is queued again gets a new dispatch number."""

    ledger_id: str
    job: int
    dispatch: int

    @property
    def rq_id(self) -> str:
        """The id in Redis: never used twice, and different between homes that share a Redis."""
        return f"{self.ledger_id}-{self.job}-{self.dispatch}"


def parse_id(rq_id: str) -> Dispatch | None:
    """Return what an id in Redis names, None if studioq did not make it."""
    match = _ID.fullmatch(rq_id)
    if match is None:
        return None
    return Dispatch(ledger_id=match[1], job=int(match[2]), dispatch=int(match[3]))


def _job_number(number: int) -> int:
    """Return the job's number: all that RQ's side of a job can do."""
    return number


FUNCTION = "studioq.job"
_FUNCTIONS: dict[str, Callable[[int], int]] = {FUNCTION: _job_number}


class Job(rq.job.Job):  # type: ignore[misc]
    """RQ's job with its doors closed."""

    success_callback: ClassVar[None] = None
    failure_callback: ClassVar[None] = None
    stopped_callback: ClassVar[None] = None

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - RQ's name
        connection: Redis | None = None,
        serializer: object = None,
    ) -> None:
        del serializer  # the caller may be RQ, whose default is pickle
        super().__init__(id, connection=connection, serializer=JSONSerializer)

    @classmethod
    def of(cls, connection: Redis, dispatch: Dispatch) -> Job:
        """Build the RQ job of a dispatch from the ledger alone."""
        job = cls(dispatch.rq_id, connection=connection)
        job.func_name = FUNCTION
        job.args, job.kwargs, job.instance = [dispatch.job], {}, None
        job.origin = defaults.QUEUE_NAME
        job.description = f"studioq job {dispatch.job}"
        # RQ's time limits are signals in a process that runs none of our jobs; a positive number
        # also ends as a negative heartbeat.
        job.timeout = -1
        job.result_ttl = 0
        job.enqueued_at = job.created_at
        job._status = JobStatus.QUEUED
        return job

    @property
    def number(self) -> int:
        """The ledger's number of the job."""
        return int(self.args[0])

    @property
    def func(self) -> Callable[[int], int]:
        """The one function there is; its name was checked when it was read."""
        return _FUNCTIONS[self.func_name]

    def _execute(self) -> NoReturn:
        raise MalformedJobError(f"RQ job {self.id} was to run outside the engine")

    def send_webhooks(self, *_args: object, **_options: object) -> None:
        """Send nothing: RQ would fetch any address found in Redis."""

    def _deserialize_data(self) -> None:
        """Read the payload, which has one shape only."""
        self._func_name, self._instance, self._args, self._kwargs = _payload(self.data)

    def restore(self, raw_data: Mapping[bytes | str, bytes]) -> None:
        """Read a job hash; fields that studioq does not write are ignored.

        Raises:
            MalformedJobError: it is not one that studioq wrote.
        """
        fields = {_name(key): value for key, value in raw_data.items()}
        self.data = _decompressed(self.id, _field(self.id, fields, "data"))
        self._deserialize_data()
        try:
            self._restore_texts(fields)
            self._restore_times(fields)
        except (ValueError, OverflowError) as error:
            raise MalformedJobError(f"RQ job {self.id} cannot be read: {error}") from error

    def _restore_texts(self, fields: Mapping[str, bytes]) -> None:
        self.origin = _field(self.id, fields, "origin").decode() or defaults.QUEUE_NAME
        self.description = _field(self.id, fields, "description").decode()
        self.worker_name = _field(self.id, fields, "worker_name").decode() or None
        self._status = JobStatus(_field(self.id, fields, "status").decode() or JobStatus.QUEUED)
        self.timeout = -1
        self.result_ttl = 0

    def _restore_times(self, fields: Mapping[str, bytes]) -> None:
        for name in ("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat"):
            value = _field(self.id, fields, name)
            setattr(self, name, str_to_date(value) if value else None)


def _name(key: bytes | str) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key


def _field(rq_id: str, fields: Mapping[str, bytes], name: str) -> bytes:
    """Return a field of a job hash, empty if it is not there."""
    value = fields.get(name, b"")
    if len(value) > MAX_FIELD:
        raise MalformedJobError(f"RQ job {rq_id}: field {name} has {len(value)} bytes")
    return value


def _decompressed(rq_id: str, value: bytes) -> bytes:
    """Decompress at most ``MAX_FIELD`` bytes, so that a small bomb cannot fill the memory."""
    decompressor = zlib.decompressobj()
    try:
        data = decompressor.decompress(value, MAX_FIELD)
    except zlib.error as error:
        raise MalformedJobError(f"RQ job {rq_id} cannot be decompressed: {error}") from error
    if not decompressor.eof:
        raise MalformedJobError(f"RQ job {rq_id} is cut off or larger than {MAX_FIELD} bytes")
    return data


def _payload(data: bytes) -> tuple[str, None, list[int], dict[str, Any]]:
    """Return function name, instance, arguments and options, of which one form is allowed."""
    try:
        name, instance, args, kwargs = json.loads(data)
        (number,) = args
    except (ValueError, TypeError, RecursionError) as error:
        raise MalformedJobError(f"an RQ job's payload cannot be read: {error}") from error
    known = isinstance(name, str) and name in _FUNCTIONS
    plain = instance is None and kwargs == {} and type(args) is list
    if not (known and plain and type(number) is int):
        raise MalformedJobError(f"an RQ job calls {str(name)[:80]!r}, which is not studioq's")
    return name, None, [number], {}
