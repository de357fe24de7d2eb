from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from daemon.processes import is_alive, kill_if_same, process_started


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
