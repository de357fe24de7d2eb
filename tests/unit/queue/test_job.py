"""Each door that JSON alone leaves open to whoever can write to Redis is closed."""

from __future__ import annotations

import json
import pickle
import zlib
from datetime import datetime
from typing import Any

import pytest
import rq.job
from redis import Redis
from rq.serializers import JSONSerializer, PickleSerializer

from daemon.queue.job import FUNCTION, MAX_FIELD, Dispatch, Job, MalformedJobError, parse_id

DISPATCH = Dispatch(ledger_id="0123abcd", job=12, dispatch=3)


@pytest.fixture
def connection() -> Redis:
    """A client that never connects: reading a hash needs no server."""
    return Redis(unix_socket_path="/nonexistent")


def stored(connection: Redis, **changes: Any) -> dict[bytes | str, bytes]:
    """Return a job's hash as Redis gives it back, with changed fields."""
    fields = {**Job.of(connection, DISPATCH).to_dict(), **changes}
    return {name.encode(): as_bytes(value) for name, value in fields.items()}


def as_bytes(value: bytes | str | int) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else str(value).encode()


def payload(*parts: Any) -> bytes:
    return zlib.compress(json.dumps(parts).encode())


def restored(connection: Redis, **changes: Any) -> Job:
    job = Job(DISPATCH.rq_id, connection=connection)
    job.restore(stored(connection, **changes))
    return job


def test_what_is_written_is_read_back(connection: Redis) -> None:
    job = restored(connection)
    assert job.number == 12
    assert job.func(12) == 12
    assert job.origin == "studioq"
    assert job.timeout == -1
    assert isinstance(job.enqueued_at, datetime)


def test_a_stock_job_reads_it(connection: Redis) -> None:
    job = rq.job.Job(DISPATCH.rq_id, connection=connection, serializer=JSONSerializer)
    job.restore(stored(connection))
    assert (job.func_name, list(job.args), job.result_ttl) == (FUNCTION, [12], 0)


def test_ids_name_ledger_job_and_dispatch() -> None:
    assert parse_id(DISPATCH.rq_id) == DISPATCH
    for other in ("12", "0123abcd-12", "0123abcd-12-0", "0123abcd-1e3-1", f"0123abcd-{'9' * 19}-1"):
        assert parse_id(other) is None


def test_the_serializer_is_json_whatever_is_asked(connection: Redis) -> None:
    assert Job(connection=connection, serializer=PickleSerializer).serializer is JSONSerializer


@pytest.mark.parametrize(
    "data",
    [
        payload("os.system", None, ["true"], {}),
        payload("subprocess.run", None, [1], {}),
        payload(FUNCTION, "instance", [1], {}),
        payload(FUNCTION, None, [1, 2], {}),
        payload(FUNCTION, None, ["1"], {}),
        payload(FUNCTION, None, [True], {}),
        payload(FUNCTION, None, [1], {"a": 1}),
        payload(FUNCTION, None, {"1": 1}, {}),
        payload([FUNCTION], None, [1], {}),
        payload(FUNCTION),
        zlib.compress(b"{"),
        zlib.compress(b"[" * (MAX_FIELD - 1)),
        zlib.compress(pickle.dumps((FUNCTION, None, [1], {}))),
        json.dumps([FUNCTION, None, [1], {}]).encode(),
        payload(FUNCTION, None, [1], {})[:-4],
        b"",
        b"\xff" * 100,
    ],
)
def test_any_other_payload_is_refused(connection: Redis, data: bytes) -> None:
    with pytest.raises(MalformedJobError):
        restored(connection, data=data)


def test_bombs_are_refused_unopened(connection: Redis) -> None:
    bomb = zlib.compress(b"[" + b" " * 10_000_000)
    with pytest.raises(MalformedJobError, match="bytes"):
        restored(connection, data=bomb)
    with pytest.raises(MalformedJobError, match="larger than"):
        restored(connection, data=zlib.compress(b" " * (MAX_FIELD + 1)))


def test_a_second_compressed_field_is_never_opened(connection: Redis) -> None:
    job = restored(connection, exc_info=zlib.compress(b" " * 10_000_000))
    assert job._exc_info is None


@pytest.mark.parametrize("name", ["success", "failure", "stopped"])
def test_callbacks_are_not_imported(connection: Redis, name: str) -> None:
    job = restored(connection, **{f"{name}_callback_name": "os.abort"})
    assert getattr(job, f"{name}_callback") is None
    assert getattr(job, f"_{name}_callback_name") is None


def test_webhooks_are_not_sent(connection: Redis) -> None:
    hook = {"url": "http://192.0.2.1/", "job_status": "finished"}
    job = restored(connection, webhooks=json.dumps([hook]))
    assert job.webhooks == []
    job.send_webhooks("finished")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dependency_ids", '["x"]'),
        ("group_id", "g"),
        ("retries_left", "5"),
        ("repeats_left", "5"),
        ("rate_limit_key", "k"),
        ("meta", pickle.dumps({})),
        ("result", pickle.dumps({})),
    ],
)
def test_other_fields_are_not_read(connection: Redis, name: str, value: bytes | str) -> None:
    job = restored(connection, **{name: value})
    assert (job._dependency_ids, job.group_id, job.retries_left, job.repeats_left) == (
        [],
        None,
        None,
        None,
    )
    assert (job.rate_limit_key, job.meta, job._result) == (None, {}, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "odd"),
        ("status", b"\xff"),
        ("created_at", "yesterday"),
        ("origin", b"\xff\xfe"),
        ("description", "x" * (MAX_FIELD + 1)),
    ],
)
def test_malformed_fields_are_one_error(connection: Redis, name: str, value: bytes | str) -> None:
    with pytest.raises(MalformedJobError):
        restored(connection, **{name: value})


def test_a_job_runs_in_the_engine_only(connection: Redis) -> None:
    with pytest.raises(MalformedJobError, match="outside the engine"):
        restored(connection).perform()
