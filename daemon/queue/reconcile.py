"""Making the Redis queue agree with the ledger.

The rule this module protects: the ledger is right. Every queued dispatch is listed once, and
entries of this ledger that are not queued any more go. Entries of other ledgers that share the
Redis are left alone. If both sides agree, that costs one LRANGE and a comparison.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis, RedisError, ResponseError

from daemon.queue.dispatch import restore, rewrite
from daemon.queue.job import Dispatch, Job, MalformedJobError, parse_id
from daemon.queue.queue import list_key, quarantine

log = logging.getLogger(__name__)

ReadQueued = Callable[[], Iterable[tuple[int, int]]]
_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """How many entries were added, removed, and put aside or written anew as unreadable."""

    added: int = 0
    removed: int = 0
    quarantined: int = 0

    @property
    def changed(self) -> bool:
        """Whether Redis and the ledger disagreed."""
        return self != Reconciled()


@dataclass(frozen=True, kw_only=True)
class _Difference:
    missing: tuple[Dispatch, ...]
    surplus: tuple[str, ...]
    doubled: tuple[str, ...]
    foreign: tuple[str, ...]
    listed: tuple[Dispatch, ...]


def reconcile(
    connection: Redis, ledger_id: str, read_queued: ReadQueued, *, thorough: bool = False
) -> Reconciled | None:
    """Add what is missing, remove what is surplus; None if Redis is away.

    ``read_queued`` gives (job, dispatch) of every queued job. It is called after the list was read:
    an entry that is listed and not queued by then has really gone. ``thorough`` also reads the
    hash of every listed job, for the start of a daemon.
    """
    try:
        difference = _compare(ledger_id, _listed(connection), read_queued())
        result = _settle(connection, ledger_id, difference)
        if thorough:
            result = _check_hashes(connection, difference.listed, result)
    except RedisError as error:
        log.warning("action=reconcile_failed error=%s", error)
        return None
    if result.changed:
        log.info(
            "action=reconciled added=%d removed=%d quarantined=%d",
            result.added,
            result.removed,
            result.quarantined,
        )
    return result


def _listed(connection: Redis) -> list[str]:
    """Return the ids on the list; a key of that name that is no list is removed."""
    try:
        entries: Any = connection.lrange(list_key(), 0, -1)
    except ResponseError:
        connection.delete(list_key())
        return []
    return [entry.decode("utf-8", "surrogateescape") for entry in entries]


def _compare(
    ledger_id: str, listed: Sequence[str], queued: Iterable[tuple[int, int]]
) -> _Difference:
    wanted = {
        dispatch.rq_id: dispatch
        for dispatch in (
            Dispatch(ledger_id=ledger_id, job=job, dispatch=number) for job, number in queued
        )
    }
    if listed == list(wanted):
        return _Difference(
            missing=(), surplus=(), doubled=(), foreign=(), listed=tuple(wanted.values())
        )
    counts = Counter(listed)
    others = {rq_id: parse_id(rq_id) for rq_id in counts if rq_id not in wanted}
    return _Difference(
        missing=tuple(wanted[rq_id] for rq_id in wanted if rq_id not in counts),
        surplus=tuple(rq for rq, named in others.items() if named and named.ledger_id == ledger_id),
        doubled=tuple(rq for rq, count in counts.items() if count > 1 and rq in wanted),
        foreign=tuple(rq for rq, named in others.items() if named is None),
        listed=tuple(wanted[rq_id] for rq_id in wanted if rq_id in counts),
    )


def _settle(connection: Redis, ledger_id: str, difference: _Difference) -> Reconciled:
    if difference.surplus or difference.doubled:
        _remove(connection, difference)
    for rq_id in difference.foreign:
        quarantine(connection, rq_id, "it is not an id of studioq's")
    for start in range(0, len(difference.missing), _BATCH):
        restore(connection, ledger_id, difference.missing[start : start + _BATCH])
    return Reconciled(
        added=len(difference.missing),
        removed=len(difference.surplus) + len(difference.doubled),
        quarantined=len(difference.foreign),
    )


def _remove(connection: Redis, difference: _Difference) -> None:
    with connection.pipeline() as pipe:
        for rq_id in difference.surplus:
            pipe.lrem(list_key(), 0, rq_id)
            pipe.delete(Job.key_for(rq_id))
        for rq_id in difference.doubled:
            pipe.lrem(list_key(), 0, rq_id)
            pipe.rpush(list_key(), rq_id)
        pipe.execute()


def _check_hashes(connection: Redis, listed: Sequence[Dispatch], result: Reconciled) -> Reconciled:
    """Write anew each listed job's hash that is absent or unreadable."""
    bad = 0
    for start in range(0, len(listed), _BATCH):
        batch = listed[start : start + _BATCH]
        with connection.pipeline(transaction=False) as pipe:
            for dispatch in batch:
                pipe.hgetall(Job.key_for(dispatch.rq_id))
            found = pipe.execute(raise_on_error=False)
        spoiled = [
            dispatch
            for dispatch, raw in zip(batch, found, strict=True)
            if not _is_readable(connection, dispatch, raw)
        ]
        bad += len(spoiled)
        _rewrite(connection, spoiled)
    return Reconciled(
        added=result.added, removed=result.removed, quarantined=result.quarantined + bad
    )


def _is_readable(connection: Redis, dispatch: Dispatch, raw: object) -> bool:
    if not isinstance(raw, dict):
        return False
    job = Job(dispatch.rq_id, connection=connection)
    try:
        job.restore(raw)
    except MalformedJobError:
        return False
    return job.number == dispatch.job


def _rewrite(connection: Redis, dispatches: Sequence[Dispatch]) -> None:
    with connection.pipeline() as pipe:
        for dispatch in dispatches:
            rewrite(pipe, connection, dispatch)
        pipe.execute()
