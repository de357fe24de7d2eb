"""The regular duties, with a real Redis server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon import defaults
from daemon.filestore import FileStore
from daemon.ledger import jobs, queries
from daemon.ledger.downloads import request_download
from daemon.ledger.jobs import NewJob
from daemon.ledger.migrate import open_ledger
from daemon.ledger.states import DownloadState
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Download
from daemon.ledger.uploads import add_upload
from daemon.ledger.users import ensure_user
from daemon.ledger.writer import Writer
from daemon.supervisor.housekeeping import PRUNE_EVERY, Housekeeping

NOW = 1_000_000.0
KEPT, USED, OLD = "a" * 64, "b" * 64, "c" * 64


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Home:
    ledger: Ledger
    duties: Housekeeping
    clock: Clock
    announced: list[tuple[int, int]]
    store: FileStore

    def submit(self, **options: Any) -> int:
        with self.ledger.writing() as session:
            user = ensure_user(session, uid=501, name="ann", now=NOW)
            new = NewJob(user_id=user.id, kind="noop", spec={}, **options)
            return jobs.submit(session, new, actor="ann", now=NOW).id


@pytest.fixture
def home(tmp_path: Path, redis_server: Any) -> Iterator[Home]:
    ledger = open_ledger(tmp_path / "ledger.db")
    writer = Writer(ledger, pause=0.0)
    clock, announced = Clock(), list[tuple[int, int]]()
    store = FileStore(tmp_path)
    duties = Housekeeping(
        ledger=ledger,
        writer=writer,
        store=store,
        models=tmp_path / "models",
        url=redis_server.url,
        ledger_id="0123abcd",
        announce=lambda *found: announced.extend(found),
        clock=clock,
    )
    yield Home(ledger=ledger, duties=duties, clock=clock, announced=announced, store=store)
    duties.close()
    writer.close()
    ledger.close()


def listed(redis_server: Any) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(redis_server.socket))
        connection.sendall(b"LRANGE rq:queue:studioq 0 -1\r\n")
        return connection.recv(4096)


def test_a_job_whose_time_has_come_is_queued_and_announced(home: Home) -> None:
    number = home.submit(begin_at=NOW + 10)
    home.duties.tick(0.0, redis_ready=True)
    assert home.announced == []

    home.clock.now += 11
    home.duties.tick(1.0, redis_ready=True)

    assert home.announced == [(number, 1)]


def test_only_the_look_at_redis_waits_for_redis(home: Home, redis_server: Any) -> None:
    number = home.submit(begin_at=NOW + 10)
    with home.ledger.writing() as session:
        add_upload(session, user_id=1, sha256=OLD, size=1, now=NOW - defaults.UPLOAD_KEPT - 1)
    home.store.path(OLD).parent.mkdir()
    home.store.path(OLD).touch()
    home.clock.now += 11

    home.duties.tick(PRUNE_EVERY, redis_ready=False)

    assert home.announced == [(number, 1)]
    assert not home.store.path(OLD).exists()
    assert listed(redis_server) == b"*0\r\n"


def test_redis_is_made_to_agree_with_the_ledger(home: Home, redis_server: Any) -> None:
    home.submit()

    home.duties.tick(0.0, redis_ready=True)

    assert b"0123abcd-1-1" in listed(redis_server)


def test_a_look_that_finds_nothing_writes_nothing(home: Home) -> None:
    home.duties.tick(0.0, redis_ready=True)
    before = home.ledger.path.with_name("ledger.db-wal").stat().st_size

    for second in range(1, 20):
        home.duties.tick(float(second), redis_ready=True)

    assert home.ledger.path.with_name("ledger.db-wal").stat().st_size == before


def test_a_late_job_that_waits_for_more_than_its_time_is_left_alone(home: Home) -> None:
    first = home.submit(hold=True)
    late = home.submit(begin_at=NOW + 10, after=(first,))
    fetched = home.submit(begin_at=NOW + 10, model="org/name", needs_download=True)
    home.clock.now += 11
    wal = home.ledger.path.with_name("ledger.db-wal")
    home.duties.tick(0.0, redis_ready=True)
    before = wal.stat().st_size
    with home.ledger.reading() as session:
        assert not queries.has_due_jobs(session, now=home.clock.now)

    home.duties.tick(1.0, redis_ready=True)

    assert wal.stat().st_size == before
    with home.ledger.writing() as session:
        request_download(session, "org/name", now=NOW)
        session.get_one(Download, "org/name").state = DownloadState.READY
    home.duties.tick(2.0, redis_ready=True)
    assert home.announced == [(fetched, 1)]
    with home.ledger.reading() as session:
        assert jobs.get_job(session, late).state == "waiting"


def test_what_no_job_needs_is_deleted_after_its_time(home: Home) -> None:
    home.submit(inputs={"rows": ("r.jsonl", USED)})
    with home.ledger.writing() as session:
        expired = NOW - defaults.UPLOAD_KEPT - 1
        for sha256, at in ((KEPT, NOW), (USED, expired), (OLD, expired)):
            add_upload(session, user_id=1, sha256=sha256, size=1, now=at)
            home.store.path(sha256).parent.mkdir()
            home.store.path(sha256).touch()

    home.duties.tick(PRUNE_EVERY, redis_ready=True)

    assert [home.store.path(sha256).exists() for sha256 in (KEPT, USED, OLD)] == [True, True, False]
