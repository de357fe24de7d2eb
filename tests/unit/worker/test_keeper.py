"""What the keeper makes of an engine's end: nothing that was said is lost, and no end is missed.

The engines are small programs that speak the protocol, so that they end when a test says so.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.engine.handle import EngineProcess
from workers.keeper import EngineKeeper
from workers.protocol import Evict, Over, encode

PATIENCE = 30.0
OVER = Over(attempt=1, state="succeeded")
# Waits for a line, answers with its argument and ends.
PROGRAM = "import os, sys; os.read(0, 1); os.write(0, sys.argv[1].encode())"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Bench:
    """A keeper, its clock, and the engine's end of the socket, held open by somebody else."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.clock = Clock()
        self.keeper = EngineKeeper(spawn=self.spawn, clock=self.clock)
        self.engine: EngineProcess
        self.held: socket.socket

    def spawn(self) -> EngineProcess:
        ours, self.held = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, encode(OVER).decode()], stdin=self.held.fileno()
        )
        ours.setblocking(False)
        self.engine = EngineProcess(
            pid=process.pid,
            started=0.0,
            last_heard=0.0,
            _process=process,
            _socket=ours,
            _log=self.log,
            _log_start=0,
            _clock=time.monotonic,
        )
        return self.engine

    def end_unheard(self) -> None:
        """Let the engine answer and end, without reading what it says."""
        self.engine.send(Evict())
        assert self.engine.wait(PATIENCE) == 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "engine.log")
    made.log.touch()
    assert made.keeper.poll(0.0) == []
    yield made
    made.held.close()
    made.engine.close()
    made.engine.wait(PATIENCE)


def test_the_last_words_of_an_engine_that_ends_unheard_are_heard(bench: Bench) -> None:
    bench.held.close()
    bench.end_unheard()
    # As if it had ended between the keeper's last look at the socket and its look at the process.
    bench.keeper._look_after(bench.engine)
    assert bench.keeper.take_death() is None
    assert bench.keeper.poll(0.0) == [OVER]
    death = bench.keeper.take_death()
    assert death is not None
    assert (death.how, death.out_of_memory) == ("ended", False)


def test_an_engine_whose_socket_somebody_holds_is_buried_in_time(bench: Bench) -> None:
    bench.end_unheard()
    assert bench.keeper.poll(0.0) == [OVER]
    bench.clock.seconds = 4.9
    assert bench.keeper.poll(0.0) == []
    assert bench.keeper.take_death() is None
    bench.clock.seconds = 5.0
    assert bench.keeper.poll(0.0) == []
    assert bench.keeper.take_death() is not None
    assert bench.keeper.pid is None
