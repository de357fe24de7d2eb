"""Restart delays, records of processes, the home's lock, and children of real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.supervisor.backoff import Backoff
from daemon.supervisor.child import Child, Plan
from daemon.supervisor.records import (
    HomeLock,
    HomeTakenError,
    Record,
    read_record,
    write_record,
)
from daemon.supervisor.supervisor import WORKER_GRACE, _public
from workers.runner import Graces

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)"
    "; time.sleep(600)",
]


def test_delays_grow_to_a_bound_and_begin_anew_after_a_long_life() -> None:
    backoff = Backoff(first=1.0, factor=2.0, most=5.0, reset_after=60.0)
    now, delays = 0.0, []
    for lived in (0.0, 0.0, 0.0, 0.0, 100.0):
        backoff.start(now)
        now += lived
        backoff.end(now)
        delays.append(backoff.ready_at - now)

    assert delays == [1.0, 2.0, 4.0, 5.0, 1.0]
    assert not backoff.may_start(now)
    assert backoff.may_start(backoff.ready_at)


def test_a_record_knows_its_process_from_a_later_one_of_the_same_number(tmp_path: Path) -> None:
    mine = Record.of(os.getpid())
    assert mine is not None
    write_record(tmp_path / "r.json", mine)

    assert read_record(tmp_path / "r.json") == mine
    assert mine.lives()
    assert not Record(pid=mine.pid, started=mine.started + 1, version="").lives()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x", "started": 1}', "\x00"])
def test_a_record_that_says_nothing_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "r.json").write_text(content)

    assert read_record(tmp_path / "r.json") is None


def test_a_home_has_one_daemon_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "locks"
    folder.mkdir(parents=True)
    lock = HomeLock(folder / "daemon.lock")

    with pytest.raises(HomeTakenError, match=f"process {os.getpid()} .*{tmp_path / 'home'}"):
        HomeLock(folder / "daemon.lock")
    lock.release()
    HomeLock(folder / "daemon.lock").release()


MakeChild = Callable[..., Child]


@pytest.fixture
def make_child(tmp_path: Path) -> Iterator[MakeChild]:
    made: list[Child] = []

    def _make(command: list[str], **options: Path) -> Child:
        plan = Plan(
            name="sleeper",
            command=lambda: command,
            output=tmp_path / "out.log",
            record=tmp_path / "sleeper.json",
            environment={},
            **options,
        )
        made.append(Child(plan))
        return made[-1]

    yield _make
    for child in made:
        child.stop(grace=10.0)


def test_a_child_is_started_once(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)

    first, second = child.keep(), child.keep()

    assert first is not None
    assert first == second


def test_a_second_keeper_adopts_it(make_child: MakeChild) -> None:
    first = make_child(SLEEPER).keep()

    assert first is not None
    assert make_child(SLEEPER).keep() == first


def test_a_dead_child_is_replaced_after_the_delay(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    child.backoff = Backoff(first=0.0, factor=1.0, most=0.0)
    first = child.keep()
    assert first is not None

    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)

    second = child.keep()
    assert second is not None
    assert second.pid != first.pid


def test_a_child_that_dies_early_is_not_started_again_at_once(make_child: MakeChild) -> None:
    child = make_child(SLEEPER)
    child.backoff = Backoff(first=600.0)
    first = child.keep()
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)

    assert child.keep() is None


def test_a_child_that_cannot_be_started_is_no_crash(make_child: MakeChild) -> None:
    assert make_child(["/nowhere/program"]).keep() is None


def test_a_deaf_child_is_killed_after_the_grace(make_child: MakeChild, tmp_path: Path) -> None:
    child = make_child(DEAF)
    record = child.keep()
    assert record is not None
    while "ready" not in (tmp_path / "out.log").read_text():
        assert record.lives()

    child.stop(grace=0.05)

    assert not record.lives()


def test_the_worker_is_given_more_time_than_it_gives_its_engine() -> None:
    assert Graces().stop < WORKER_GRACE


def test_a_process_that_names_itself_is_adopted(make_child: MakeChild, tmp_path: Path) -> None:
    process = subprocess.Popen(SLEEPER)
    record = Record.of(process.pid)
    assert record is not None
    own = tmp_path / "own.lock"
    own.write_text(json.dumps({"pid": record.pid, "started": record.started}) + "\n")

    found = make_child(SLEEPER, own_record=own).keep()

    assert found is not None
    assert found.pid == process.pid
    process.kill()
    process.wait()


def test_a_number_that_was_given_away_is_never_signalled(
    make_child: MakeChild, tmp_path: Path
) -> None:
    stranger = subprocess.Popen(SLEEPER)
    write_record(tmp_path / "sleeper.json", Record(pid=stranger.pid, started=1.0, version="0.1.0"))
    child = make_child(SLEEPER)

    assert child.signal(signal.SIGKILL) is False
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("unix:///tmp/x", "unix:///tmp/x"),
        ("redis://host:1/0", "redis://host:1/0"),
        ("redis://:secret@host:1/0", "redis://:***@host:1/0"),
        ("rediss://me:secret@host/0", "rediss://me:***@host/0"),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert _public(url) == shown
