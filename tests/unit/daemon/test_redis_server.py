"""The keeper of the embedded Redis server, with real servers that die, hang and linger."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.locate import Paths
from daemon.supervisor.redis_server import HUNG_AFTER, RedisServer, ServerState, ask


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def paths() -> Iterator[Paths]:
    folder = Path(tempfile.mkdtemp(prefix="sq", dir="/tmp"))
    made = Paths(home=folder / "home", runtime=folder / "run")
    made.create()
    yield made
    shutil.rmtree(folder)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(paths: Paths, clock: Clock) -> Iterator[RedisServer]:
    made = RedisServer(paths, clock=clock)
    ready(made)
    yield made
    made.child.signal(signal.SIGKILL)
    while made.child.living() is not None:
        pass


def ready(server: RedisServer) -> int:
    """Keep the server until it answers; return its pid."""
    while True:
        server.keep()
        if server.state == ServerState.READY and server.pid is not None:
            return server.pid


def test_it_listens_on_its_private_socket_alone(paths: Paths, server: RedisServer) -> None:
    settings = ask(paths.redis_socket, b"CONFIG GET port") or b""

    assert b"$1\r\n0\r\n" in settings
    assert paths.redis_socket.stat().st_mode & 0o777 == 0o700
    assert b"yes" in (ask(paths.redis_socket, b"CONFIG GET appendonly") or b"")
    assert b"noeviction" in (ask(paths.redis_socket, b"CONFIG GET maxmemory-policy") or b"")


def test_looking_again_starts_nothing(server: RedisServer) -> None:
    first = server.pid

    assert ready(server) == first


def test_a_dead_server_is_replaced_and_keeps_its_data(
    paths: Paths, server: RedisServer, clock: Clock
) -> None:
    assert ask(paths.redis_socket, b"RPUSH waiting 1 2 3") == b":3\r\n"
    assert server.pid is not None
    first = server.pid
    assert ask(paths.redis_socket, b"BGREWRITEAOF") is not None
    os.kill(first, signal.SIGTERM)
    while server.child.living() is not None:
        pass

    clock.now += 60

    assert ready(server) != first
    assert ask(paths.redis_socket, b"LLEN waiting") == b":3\r\n"


def test_a_server_without_a_record_is_adopted(paths: Paths, server: RedisServer) -> None:
    first = server.pid
    (paths.locks / "redis.json").unlink()

    assert ready(server) == first


def test_a_silent_server_is_waited_for_and_then_killed(server: RedisServer, clock: Clock) -> None:
    assert server.pid is not None
    first = server.pid
    os.kill(first, signal.SIGSTOP)

    server.keep()
    clock.now += HUNG_AFTER / 2
    server.keep()
    assert server.state == ServerState.SILENT
    assert server.child.living() is not None

    clock.now += HUNG_AFTER / 2
    server.keep()
    while server.child.living() is not None:
        pass
    clock.now += 60
    assert ready(server) != first
