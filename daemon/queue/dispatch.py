"""Putting jobs on the Redis queue, taking them off, and waking the worker.

The rule this module protects: Redis only announces. What is pushed twice is listed once, what
cannot be pushed now is pushed by the reconciler later, and neither is an error for the submitter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis import Redis, RedisError

from daemon import defaults
from daemon.queue.job import Dispatch, Job
from daemon.queue.queue import Queue, list_key

log = logging.getLogger(__name__)


# How many commands waking takes (see ``_wake``).
_WAKING = 2


def wake_key(ledger_id: str) -> str:
    """Return the list that the worker of this ledger sleeps on."""
    return f"{defaults.WAKE_KEY}:{ledger_id}"


def push(connection: Redis, ledger_id: str, dispatches: Iterable[tuple[int, int]]) -> bool:
    """Wake the worker and list (job, dispatch) pairs as waiting; False if Redis is away.

    Idempotent by the job's hash: only who makes it adds the id to the list. If the process dies
    in between, the reconciler adds it. The worker is woken first: it asks the ledger, not the list,
    and takes an id off the list when the job has ended.
    """
    wanted = _dispatches(ledger_id, dispatches)
    try:
        fresh = _wake_and_make(connection, ledger_id, wanted)
        if fresh:
            _list(connection, fresh)
    except RedisError as error:
        log.warning("action=push_failed jobs=%d error=%s", len(wanted), error)
        return False
    return True


def withdraw(connection: Redis, ledger_id: str, dispatches: Iterable[tuple[int, int]]) -> bool:
    """Take jobs that are no longer queued off the list; False if Redis is away."""
    gone = [dispatch.rq_id for dispatch in _dispatches(ledger_id, dispatches)]
    try:
        with connection.pipeline() as pipe:
            for rq_id in gone:
                pipe.lrem(list_key(), 0, rq_id)
                pipe.delete(Job.key_for(rq_id))
            pipe.execute()
    except RedisError as error:
        log.warning("action=withdraw_failed jobs=%d error=%s", len(gone), error)
        return False
    return True


def restore(connection: Redis, ledger_id: str, dispatches: Sequence[Dispatch]) -> None:
    """List dispatches whatever is there already, in one round trip, and wake the worker.

    Raises:
        RedisError: Redis is away.
    """
    with connection.pipeline() as pipe:
        for dispatch in dispatches:
            rewrite(pipe, connection, dispatch)
            pipe.rpush(list_key(), dispatch.rq_id)
        pipe.sadd(Queue.redis_queues_keys, list_key())
        _wake(pipe, ledger_id)
        pipe.execute()


def rewrite(pipe: Redis, connection: Redis, dispatch: Dispatch) -> None:
    """Write the job's hash anew, in the place of whatever has its key."""
    key = Job.key_for(dispatch.rq_id)
    pipe.delete(key)
    pipe.hset(key, mapping=_hash_of(connection, dispatch))


def _dispatches(ledger_id: str, pairs: Iterable[tuple[int, int]]) -> list[Dispatch]:
    return [Dispatch(ledger_id=ledger_id, job=job, dispatch=number) for job, number in pairs]


def _wake_and_make(connection: Redis, ledger_id: str, wanted: Sequence[Dispatch]) -> list[Dispatch]:
    """Wake the worker, make the hashes that are not there yet and return whose they are."""
    with connection.pipeline(transaction=False) as pipe:
        _wake(pipe, ledger_id)
        for dispatch in wanted:
            pipe.hsetnx(Job.key_for(dispatch.rq_id), "status", "queued")
        made = pipe.execute()[_WAKING:]
    return [dispatch for dispatch, new in zip(wanted, made, strict=True) if new]


def _list(connection: Redis, fresh: Sequence[Dispatch]) -> None:
    """Complete the hashes of ``fresh`` and put their ids on the list."""
    with connection.pipeline() as pipe:
        for dispatch in fresh:
            pipe.hset(Job.key_for(dispatch.rq_id), mapping=_hash_of(connection, dispatch))
        pipe.sadd(Queue.redis_queues_keys, list_key())
        pipe.rpush(list_key(), *(dispatch.rq_id for dispatch in fresh))
        pipe.execute()


def _hash_of(connection: Redis, dispatch: Dispatch) -> Mapping[Any, Any]:
    mapping: Mapping[Any, Any] = Job.of(connection, dispatch).to_dict()
    return mapping


def _wake(pipe: Redis, ledger_id: str) -> None:
    """Leave one token: it says that something is new, however often that was said."""
    pipe.delete(wake_key(ledger_id))
    pipe.lpush(wake_key(ledger_id), "1")
