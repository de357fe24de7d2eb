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
from daemon.ledger.states import DownloadState, JobState
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Download, Job
from daemon.ledger.uploads import add_upload
from daemon.ledger.users import ensure_user
from daemon.ledger.writer import Writer
from daemon.supervisor.housekeeping import PRUNE_EVERY, Housekeeping
from daemon.targets import set_aside, staging_folder, staging_folders

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


def begin_model(home: Home, name: str, job: int) -> Path:
    """Make what a conversion leaves when it ends in the middle; return its folder."""
    folder = staging_folder(home.duties.models / "ann" / name, job)
    folder.mkdir(parents=True)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"half")
    return folder


def set_state(home: Home, number: int, state: JobState) -> None:
    with home.ledger.writing() as session:
        session.get_one(Job, number).state = state


@pytest.mark.parametrize("state", JobState)
def test_half_a_model_stays_while_its_job_may_go_on_with_it(home: Home, state: JobState) -> None:
    number = home.submit()
    folder = begin_model(home, "new", number)
    set_state(home, number, state)

    home.duties.tick(0.0, redis_ready=False)

    assert folder.exists() is (state not in {"succeeded", "failed", "cancelled"})
    assert staging_folders(home.duties.models) == [] or folder.exists()


def test_half_a_model_is_removed_at_the_start_and_once_an_hour(home: Home) -> None:
    number = home.submit()
    unknown, live = begin_model(home, "old", 99), begin_model(home, "new", number)
    home.duties.tick(0.0, redis_ready=False)
    assert (unknown.exists(), live.exists()) == (False, True)

    set_state(home, number, JobState.FAILED)
    home.duties.tick(PRUNE_EVERY - 1, redis_ready=False)
    assert live.exists()
    home.duties.tick(PRUNE_EVERY, redis_ready=False)
    assert list((home.duties.models / "ann").iterdir()) == []


def test_a_removal_that_was_broken_off_is_finished(home: Home) -> None:
    begin_model(home, "new", 99)
    set_aside(staging_folders(home.duties.models)[0])
    begin_model(home, "new", 99)

    home.duties.tick(0.0, redis_ready=False)
    home.duties.tick(PRUNE_EVERY, redis_ready=False)

    assert list((home.duties.models / "ann").iterdir()) == []


def test_models_and_what_lies_elsewhere_are_left_alone(home: Home, tmp_path: Path) -> None:
    root = home.duties.models
    kept = [
        root / ".ann" / ".x.job-99",
        root / ".x.job-99",
        root / "ann" / "x.job-99",
        root / "ann" / ".x.job-0",
        root / "ann" / ".x.job-",
        root / "ann" / ".part-abc",
        root / "ann" / "deep" / ".x.job-99",
        tmp_path / "elsewhere" / ".x.job-99",
    ]
    for folder in kept:
        folder.mkdir(parents=True)
    (root / "bob").symlink_to(tmp_path / "elsewhere")
    (root / "ann" / ".y.job-99").symlink_to(tmp_path / "elsewhere")

    home.duties.tick(0.0, redis_ready=False)

    assert all(folder.is_dir() for folder in kept)
    assert (root / "ann" / ".y.job-99").is_symlink()
