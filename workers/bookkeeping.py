"""What RQ's tools see of this worker: that it lives, is busy, and with which job.

The rule this module protects: all of it is decoration. Every write is tried once, failures are
noted and never raised, and while Redis is away it is left in peace for a few seconds. What expired
or was flushed is written in full by the next beat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from redis import Redis, RedisError
from redis.client import Pipeline
from rq.executions import Execution
from rq.job import JobStatus
from rq.utils import now as rq_now
from rq.worker.base import BaseWorker, WorkerStatus
from rq.worker_registration import register, unregister

from daemon.queue.job import Dispatch, Job
from daemon.queue.queue import list_key

log = logging.getLogger(__name__)

# Seconds between two signs of life, how long RQ believes one, and how long Redis is left in peace
# after a failure.
BEAT_EVERY = 15.0
BELIEVED = 90
_PEACE = 3.0


class Bookkeeping:
    """Keeps RQ's records of one worker and what it executes."""

    def __init__(
        self, worker: BaseWorker, connection: Redis, *, clock: Callable[[], float]
    ) -> None:
        self._worker = worker
        self._connection = connection
        self._clock = clock
        self._beaten_at: float | None = None
        self._peace_until = 0.0
        self._running: dict[str, tuple[Job, Execution]] = {}

    def beat(self) -> None:
        """Say that the worker and its jobs live, if it is time."""
        if self._beaten_at is None or self._clock() >= self._beaten_at + BEAT_EVERY:
            self._beaten_at = self._clock()
            self._try(self._write_all)

    def started(self, dispatch: Dispatch) -> None:
        """Move a claimed job from the waiting ones to the started ones."""
        job = self._started_job(dispatch)
        execution = Execution(uuid4().hex, job.id, self._connection, self._worker.name)
        self._running[job.id] = (job, execution)
        self._worker.executions[execution.id] = execution
        self._try(lambda pipe: self._write_start(pipe, job, execution))

    def ended(self, dispatch: Dispatch, *, succeeded: bool) -> None:
        """Remove every trace of a job; its dispatch will not come again."""
        shown = self._running.pop(dispatch.rq_id, None)
        if shown is not None:
            self._worker.executions.pop(shown[1].id, None)
        self._try(lambda pipe: self._write_end(pipe, dispatch, shown, succeeded=succeeded))

    def leave(self) -> None:
        """Say that the worker has ended."""
        self._try(self._unregister)

    def _try(self, write: Callable[[Pipeline], None]) -> None:
        if self._clock() < self._peace_until:
            return
        try:
            with self._connection.pipeline(transaction=False) as pipe:
                write(pipe)
                pipe.execute()
        except RedisError as error:
            log.warning("action=redis_away error=%s", error)
            self._peace_until = self._clock() + _PEACE

    def _write_all(self, pipe: Pipeline) -> None:
        worker = self._worker
        worker.birth_date = worker.birth_date or rq_now()
        worker.last_heartbeat = rq_now()
        register(worker, pipe)
        pipe.hset(worker.key, mapping={**worker.serialize(), "state": self._state()})
        pipe.expire(worker.key, BELIEVED)
        for job, execution in self._running.values():
            self._write_started(pipe, job, execution)

    def _started_job(self, dispatch: Dispatch) -> Job:
        job = Job.of(self._connection, dispatch)
        job._status = JobStatus.STARTED
        job.worker_name = self._worker.name
        job.started_at = rq_now()
        return job

    def _write_start(self, pipe: Pipeline, job: Job, execution: Execution) -> None:
        pipe.lrem(list_key(), 1, job.id)
        self._write_started(pipe, job, execution)
        self._worker.set_state(WorkerStatus.BUSY, pipeline=pipe)

    def _write_started(self, pipe: Pipeline, job: Job, execution: Execution) -> None:
        """Write a started job and its execution in full, for another while."""
        job.last_heartbeat = execution.last_heartbeat = rq_now()
        pipe.hset(job.key, mapping=job.to_dict())
        pipe.expire(job.key, BELIEVED)
        execution.save(BELIEVED, pipe)
        job.execution_registry.add(execution, BELIEVED, pipe)
        job.started_job_registry.add_execution(execution, pipe, ttl=BELIEVED)
        pipe.sadd(execution.worker_executions_key, execution.composite_key)
        pipe.expire(execution.worker_executions_key, BELIEVED)

    def _write_end(
        self,
        pipe: Pipeline,
        dispatch: Dispatch,
        shown: tuple[Job, Execution] | None,
        *,
        succeeded: bool,
    ) -> None:
        if shown is not None:
            job, execution = shown
            execution.delete(job, pipe)
            pipe.delete(job.execution_registry.key)
            self._worker.set_state(self._state(), pipeline=pipe)
        pipe.lrem(list_key(), 1, dispatch.rq_id)
        pipe.delete(Job.key_for(dispatch.rq_id))
        count = "successful_job_count" if succeeded else "failed_job_count"
        pipe.hincrby(self._worker.key, count, 1)

    def _state(self) -> WorkerStatus:
        return WorkerStatus.BUSY if self._running else WorkerStatus.IDLE

    def _unregister(self, pipe: Pipeline) -> None:
        unregister(self._worker, pipe)
        keys: list[Any] = [self._worker.key, self._worker.executions_key]
        pipe.delete(*keys)
