"""Dispatching and reconciling against a real server: Redis is made to agree with the ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Protocol

import pytest
import rq.job
import rq.queue
from redis import Redis
from rq.serializers import JSONSerializer

from daemon.queue.connection import connect
from daemon.queue.dispatch import push, wake_key, withdraw
from daemon.queue.job import Dispatch, Job
from daemon.queue.queue import QUARANTINE_KEPT, QUARANTINE_KEY, Queue, list_key, quarantine
from daemon.queue.reconcile import Reconciled, reconcile

LEDGER = "0123abcd"


class Server(Protocol):
    url: str

    def kill(self) -> None: ...


@pytest.fixture
def connection(redis_server: Server) -> Redis:
    return connect(redis_server.url)


def listed(connection: Redis) -> list[str]:
    entries: Any = connection.lrange(list_key(), 0, -1)
    return [entry.decode() for entry in entries]


def rq_id(job: int, dispatch: int = 1) -> str:
    return Dispatch(ledger_id=LEDGER, job=job, dispatch=dispatch).rq_id


def agree(connection: Redis, *queued: tuple[int, int], thorough: bool = False) -> Reconciled | None:
    return reconcile(connection, LEDGER, lambda: queued, thorough=thorough)


def test_push_lists_once_and_leaves_one_token(connection: Redis) -> None:
    assert push(connection, LEDGER, [(1, 1), (2, 1)])
    assert push(connection, LEDGER, [(2, 1), (3, 1), (3, 1)])
    assert listed(connection) == [rq_id(1), rq_id(2), rq_id(3)]
    assert connection.llen(wake_key(LEDGER)) == 1


def test_withdraw_takes_off_list_and_hash(connection: Redis) -> None:
    push(connection, LEDGER, [(1, 1), (2, 1)])
    assert withdraw(connection, LEDGER, [(1, 1)])
    assert listed(connection) == [rq_id(2)]
    assert not connection.exists(Job.key_for(rq_id(1)))


def test_an_absent_server_is_no_error(redis_server: Server) -> None:
    connection = connect(redis_server.url)
    redis_server.kill()
    assert not push(connection, LEDGER, [(1, 1)])
    assert not withdraw(connection, LEDGER, [(1, 1)])
    assert agree(connection, (1, 1)) is None


def test_rq_tools_see_what_waits(connection: Redis, redis_server: Server) -> None:
    push(connection, LEDGER, [(1, 1), (2, 1)])
    shown = subprocess.run(
        [sys.executable, "-m", "rq.cli", "info", "--url", redis_server.url, "--raw"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "queue studioq 2, 0 executing" in shown.stdout
    stock = rq.queue.Queue("studioq", connection=connection, serializer=JSONSerializer)
    assert [job.description for job in stock.jobs] == ["studioq job 1", "studioq job 2"]
    assert rq.job.Job.fetch(rq_id(1), connection, JSONSerializer).args == [1]


def test_agreement_costs_nothing(connection: Redis) -> None:
    push(connection, LEDGER, [(1, 1), (2, 4)])
    result = agree(connection, (1, 1), (2, 4), thorough=True)
    assert result is not None
    assert not result.changed


def test_a_flushed_server_is_filled_again(connection: Redis) -> None:
    push(connection, LEDGER, [(1, 1), (2, 1)])
    connection.flushall()
    assert agree(connection, (1, 1), (2, 1)) == Reconciled(added=2)
    assert listed(connection) == [rq_id(1), rq_id(2)]
    assert Job.fetch(rq_id(2), connection).number == 2
    assert connection.llen(wake_key(LEDGER)) == 1


def test_surplus_and_doubled_entries_go(connection: Redis) -> None:
    push(connection, LEDGER, [(1, 1), (2, 1), (3, 1)])
    connection.rpush(list_key(), rq_id(2), rq_id(2), rq_id(99))
    assert agree(connection, (2, 1), (3, 1)) == Reconciled(removed=3)
    assert sorted(listed(connection)) == [rq_id(2), rq_id(3)]
    assert not connection.exists(Job.key_for(rq_id(1)))


def test_an_older_dispatch_is_surplus(connection: Redis) -> None:
    push(connection, LEDGER, [(1, 1)])
    assert agree(connection, (1, 2)) == Reconciled(added=1, removed=1)
    assert listed(connection) == [rq_id(1, 2)]


def test_other_ledgers_on_the_server_are_left_alone(connection: Redis) -> None:
    push(connection, "ffffffff", [(1, 1)])
    push(connection, LEDGER, [(1, 1)])
    agree(connection)
    assert listed(connection) == ["ffffffff-1-1"]
    assert connection.exists(Job.key_for("ffffffff-1-1"))


def test_ids_that_are_not_ours_are_put_aside(connection: Redis) -> None:
    forged = rq.queue.Queue("studioq", connection=connection, serializer=JSONSerializer)
    job = forged.enqueue("os.system", "true")
    connection.rpush(list_key(), b"\xff\xfe", "")
    assert agree(connection, (1, 1)) == Reconciled(added=1, quarantined=3)
    assert listed(connection) == [rq_id(1)]
    assert not connection.exists(job.key)
    noted = [json.loads(note)["id"] for note in connection.lrange(QUARANTINE_KEY, 0, -1)]
    assert job.id in noted


def test_the_quarantine_is_bounded(connection: Redis) -> None:
    for number in range(QUARANTINE_KEPT + 5):
        quarantine(connection, f"x{number}", "odd", clock=lambda: 1.0)
    assert connection.llen(QUARANTINE_KEY) == QUARANTINE_KEPT


def test_spoiled_hashes_are_written_anew(connection: Redis) -> None:
    push(connection, LEDGER, [(number, 1) for number in range(1, 6)])
    connection.delete(Job.key_for(rq_id(1)))
    connection.hset(Job.key_for(rq_id(2)), "data", b"\xff")
    connection.delete(Job.key_for(rq_id(3)))
    connection.set(Job.key_for(rq_id(3)), "no hash")
    other = Job.of(connection, Dispatch(ledger_id=LEDGER, job=77, dispatch=1)).to_dict()
    connection.hset(Job.key_for(rq_id(4)), mapping=other)
    queued = [(number, 1) for number in range(1, 6)]
    assert agree(connection, *queued, thorough=True) == Reconciled(quarantined=4)
    assert [Job.fetch(rq_id(n), connection).number for n, _ in queued] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("key", [list_key(), wake_key(LEDGER)])
def test_keys_of_another_type_are_replaced(connection: Redis, key: str) -> None:
    connection.set(key, "no list")
    push(connection, LEDGER, [(1, 1)])
    agree(connection, (1, 1))
    agree(connection, (1, 1))
    assert listed(connection) == [rq_id(1)]
    assert push(connection, LEDGER, [(2, 1)])


@pytest.mark.parametrize("spoil", ["data", "status", "created_at"])
def test_dequeuing_survives_malformed_hashes(connection: Redis, spoil: str) -> None:
    push(connection, LEDGER, [(1, 1), (2, 1)])
    connection.hset(Job.key_for(rq_id(1)), spoil, b"\xff")
    queue = Queue(connection=connection)
    job, _ = Queue.dequeue_any([queue], None, connection=connection)
    assert job.number == 2
    assert connection.llen(QUARANTINE_KEY) == 1


def test_listing_survives_malformed_hashes(connection: Redis) -> None:
    push(connection, LEDGER, [(1, 1), (2, 1)])
    connection.hset(Job.key_for(rq_id(1)), "data", b"\xff")
    assert [job.number for job in Queue(connection=connection).jobs] == [2]


def test_ten_thousand_jobs_are_pushed_and_compared(connection: Redis) -> None:
    queued = [(number, 1) for number in range(1, 10_001)]
    assert agree(connection, *queued) == Reconciled(added=10_000)
    assert agree(connection, *queued) == Reconciled()
