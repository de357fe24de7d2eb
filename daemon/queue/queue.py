"""The RQ queue: a list of ids that any RQ tool can show.

The rule this module protects: an entry that cannot be read is put aside, and neither ends the
process that met it nor stops the entries behind it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import rq.queue
from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.serializers import JSONSerializer

from daemon import defaults
from daemon.queue.job import Job, MalformedJobError

# Where the ids of unreadable jobs are noted, and how many of them.
QUARANTINE_KEY = "studioq:quarantine"
QUARANTINE_KEPT = 100


class Queue(rq.queue.Queue):  # type: ignore[misc]
    """RQ's queue with JSON, our job class and a quarantine, whatever its caller asks for."""

    job_class = Job

    def __init__(
        self,
        name: str = defaults.QUEUE_NAME,
        connection: Redis | None = None,
        **options: Any,
    ) -> None:
        penalty = options.get("death_penalty_class")
        extra = {} if penalty is None else {"death_penalty_class": penalty}
        super().__init__(
            name,
            connection=connection,
            default_timeout=-1,
            job_class=Job,
            serializer=JSONSerializer,
            **extra,
        )

    def fetch_job(self, job_id: str) -> Job | None:
        """Return the job with this id; put it aside and return None if it cannot be read."""
        try:
            job: Job | None = super().fetch_job(job_id)
        except MalformedJobError as error:
            quarantine(self.connection, job_id, str(error))
            return None
        return job

    @classmethod
    def _fetch_dequeued_job(
        cls, connection: Redis, queue_key: str, job_id: str, **_options: Any
    ) -> tuple[Job, Queue] | None:
        """Return the job that was just taken off the list, None if it is gone or unreadable."""
        queue = cls.from_queue_key(queue_key, connection=connection)
        try:
            return Job.fetch(job_id, connection=connection), queue
        except NoSuchJobError:
            return None
        except (MalformedJobError, ValueError) as error:
            quarantine(connection, job_id, str(error))
            return None


def quarantine(
    connection: Redis, rq_id: str, reason: str, *, clock: Callable[[], float] = time.time
) -> None:
    """Take an unreadable job off the queue, delete its hash, and note its id and the reason."""
    note = json.dumps({"id": rq_id[:200], "reason": reason[:500], "at": clock()})
    listed = rq_id.encode("utf-8", "surrogateescape")
    with connection.pipeline() as pipe:
        pipe.lrem(list_key(), 0, listed)  # type: ignore[arg-type]
        pipe.delete(Job.key_for("").encode() + listed)
        pipe.lpush(QUARANTINE_KEY, note)
        pipe.ltrim(QUARANTINE_KEY, 0, QUARANTINE_KEPT - 1)
        pipe.execute(raise_on_error=False)


def list_key() -> str:
    """Return the key of the list that holds the waiting ids."""
    return f"{Queue.redis_queue_namespace_prefix}{defaults.QUEUE_NAME}"
