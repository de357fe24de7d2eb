from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from daemon.processes import is_alive, kill_if_same, process_started, steady_create_time


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import time; time.sleep(600)"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def started(process: subprocess.Popen[bytes]) -> float:
    found = process_started(process.pid)
    assert found is not None
    return found


def test_the_token_is_stable_and_survives_json(child: subprocess.Popen[bytes]) -> None:
    assert started(child) == started(child) == json.loads(json.dumps(started(child)))
    assert is_alive(child.pid, started(child))


def test_another_start_is_another_process(child: subprocess.Popen[bytes]) -> None:
    assert not is_alive(child.pid, started(child) + 1)
    assert not kill_if_same(child.pid, started(child) + 1)
    assert child.poll() is None


def test_only_the_recorded_process_is_killed(child: subprocess.Popen[bytes]) -> None:
    assert kill_if_same(child.pid, started(child), signal.SIGTERM)
    assert child.wait(30) == -signal.SIGTERM


def test_a_dead_process_is_not_alive_before_it_is_reaped(child: subprocess.Popen[bytes]) -> None:
    token = started(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid, token)
    assert not kill_if_same(child.pid, token)
    child.wait()
    assert process_started(child.pid) is None
    assert not is_alive(child.pid, token)
    assert not kill_if_same(child.pid, token)


class Unadjusted:
    """What psutil has for macOS: the kernel's date, moved by the clock's step unless told not to.

    The step is 3600 s.
    """

    def create_time(self, monotonic: bool = False) -> float:
        return 1000.25 if monotonic else 4600.25


class Adjusted:
    """What psutil has where it knows no other value."""

    def create_time(self) -> float:
        return 4600.25


class Process:
    """The public face of one of them, or of neither."""

    def __init__(self, inner: Unadjusted | Adjusted | None) -> None:
        if inner is not None:
            self._proc = inner

    def create_time(self) -> float:
        return 4600.25


@pytest.mark.parametrize(
    ("inner", "expected"), [(Unadjusted(), 1000.25), (Adjusted(), 4600.25), (None, 4600.25)]
)
def test_the_start_that_no_clock_step_moves_is_preferred(
    inner: Unadjusted | Adjusted | None, expected: float
) -> None:
    assert steady_create_time(Process(inner)) == expected


def test_the_installed_psutil_has_a_start_that_is_equal_each_time() -> None:
    psutil = pytest.importorskip("psutil")
    first, second = (steady_create_time(psutil.Process(os.getpid())) for _ in range(2))
    assert first == second > 0
