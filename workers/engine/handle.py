"""The worker's handle on its engine process: start it, talk to it, and say how it ended.

The rule this module protects: the worker never waits for its engine. Whatever the engine does, and
even when it is stopped, sending and receiving return at once. Imports no MLX.
"""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from daemon.processes import kill_if_same, process_started
from workers.failures import is_out_of_memory
from workers.protocol import Message, decode, encode

_COMMAND = "import sys; from workers.engine.main import main; sys.exit(main(sys.argv[2:]))"
_CHUNK = 1 << 18
_LOG_TAIL = 1 << 16

# Bytes of the engine's log after which the next engine begins a new one; one older is kept.
_MAX_LOG = 10 * 2**20

# What Metal says before it aborts the process, and what that means.
_LAST_WORDS = (
    ("CallbackErrorTimeout", "a kernel ran longer than the GPU driver allows"),
    ("ImpactingInteractivity", "the driver ended it to keep the display responsive"),
    ("[METAL]", "the GPU driver reported an error"),
    ("CUDA error", "the GPU driver reported an error"),
)


@dataclass(kw_only=True, slots=True)
class EngineProcess:
    """One engine process.

    ``started`` tells it from a later process with the same ``pid`` (``daemon.processes``).
    ``last_heard`` is the clock's reading when the engine last said anything, and when it was
    started before that.
    """

    pid: int
    started: float
    last_heard: float
    _process: subprocess.Popen[bytes]
    _socket: socket.socket
    _log: Path
    _log_start: int
    _clock: Callable[[], float]
    _incoming: bytearray = field(default_factory=bytearray)
    _outgoing: bytearray = field(default_factory=bytearray)
    _ended: bool = False
    _killed: bool = False

    @classmethod
    def spawn(
        cls,
        *,
        locks: Path,
        log: Path,
        environment: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> EngineProcess:
        """Start an engine that takes its GPU lock in the folder ``locks``.

        Its output is appended to ``log``, which only this user can read. ``environment`` is added
        to this process's (``workers.memory_env.engine_environment()``).
        """
        _keep_descriptors()
        ours, theirs = socket.socketpair()
        with theirs, _open_log(log) as output:
            log_start = output.seek(0, os.SEEK_END)
            # Its end of the socket is its standard input: that needs no inheritable descriptor,
            # and lets subprocess use posix_spawn, which no lock held by another thread can hang.
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, "studioq-engine", str(locks)],
                stdin=theirs.fileno(),
                stdout=output.fileno(),
                stderr=output.fileno(),
                close_fds=False,
                env={**os.environ, **environment},
            )
        ours.setblocking(False)
        return cls(
            pid=process.pid,
            started=process_started(process.pid) or 0.0,
            last_heard=clock(),
            _process=process,
            _socket=ours,
            _log=log,
            _log_start=log_start,
            _clock=clock,
        )

    def fileno(self) -> int:
        """Return the descriptor to wait on; it becomes readable at the engine's end too."""
        return self._socket.fileno()

    @property
    def ended(self) -> bool:
        """Say whether the engine has closed its end, which it does only by ending."""
        return self._ended

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the signal's number if one killed it, None while it lives."""
        return self._process.poll()

    def send(self, message: Message) -> None:
        """Send a message, or keep it until the engine reads on; to an ended engine, drop it.

        Raises:
            ValueError: a number in the message is not finite.
        """
        self._outgoing += encode(message)
        self._flush()

    def receive(self) -> list[Message]:
        """Return the messages that have arrived, at once and possibly none.

        Raises:
            ValueError: a line is not a message; the engine is not to be trusted any further.
        """
        self._flush()
        self._read()
        *lines, rest = bytes(self._incoming).split(b"\n")
        self._incoming[:] = rest
        if lines:
            self.last_heard = self._clock()
        return [decode(line) for line in lines]

    def wait_readable(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for messages or the engine's end; say if there are."""
        deadline = self._clock() + timeout
        while True:
            writing = [self._socket] if self._outgoing else []
            left = max(0.0, deadline - self._clock())
            readable, writable, _ = select.select([self._socket], writing, [], left)
            if writable:
                self._flush()
            if readable or left == 0.0:
                return bool(readable)

    def wait(self, timeout: float) -> int | None:
        """Wait at most ``timeout`` seconds for the process to be gone; return its exit status."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Send SIGKILL to this very process, if it still lives."""
        if self.returncode is None:
            self._killed = kill_if_same(self.pid, self.started, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the socket; an engine that still lives ends itself at once."""
        self._ended = True
        self._socket.close()

    def describe_exit(self) -> str:
        """Say how the engine ended, as the rest of a sentence that begins with "the engine"."""
        code = self.returncode
        if code is None:
            return "is still running"
        if code >= 0:
            return "ended" if code == 0 else f"ended with exit status {code}"
        if self._killed:
            return "was killed by its worker (SIGKILL)"
        if self.ran_out_of_memory():
            return f"was ended by {_name(-code)}: the GPU had no memory left"
        if -code == signal.SIGKILL:
            return "was killed by signal 9 (SIGKILL), perhaps because the machine ran out of memory"
        return _describe_crash(-code, self._last_words())

    def ran_out_of_memory(self) -> bool:
        """Say whether the engine died of an allocator's refusal that MLX could not raise."""
        died = self.returncode is not None and self.returncode < 0 and not self._killed
        return died and is_out_of_memory(RuntimeError(self._last_words()))

    def _last_words(self) -> str:
        """Return what this engine last wrote into its log."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - _LOG_TAIL))
                return file.read(_LOG_TAIL).decode("utf-8", "replace")
        except OSError:
            return ""

    def _flush(self) -> None:
        """Write as much as the socket takes."""
        try:
            while self._outgoing and not self._ended:
                del self._outgoing[: self._socket.send(self._outgoing[:_CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing.clear()

    def _read(self) -> None:
        """Take what the socket has."""
        try:
            while not self._ended:
                chunk = self._socket.recv(_CHUNK)
                self._incoming += chunk
                self._ended = not chunk
        except BlockingIOError:
            pass
        except OSError:
            self._ended = True


def _keep_descriptors() -> None:
    """Keep what this process was started with from its children; Python's own files are safe.

    ``close_fds`` would do it, at the price of posix_spawn. A pipe that the engine held open would
    not end with the worker.
    """
    for entry in Path("/dev/fd").iterdir():
        if int(entry.name) > 2:
            with suppress(OSError):
                os.set_inheritable(int(entry.name), False)


def _open_log(log: Path) -> io.FileIO:
    """Open ``log`` for appending, readable by its owner alone; a long one is set aside first."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > _MAX_LOG:
            log.replace(log.with_name(f"{log.name}.1"))
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return io.FileIO(descriptor, "a")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _describe_crash(number: int, words: str) -> str:
    """Put a fatal signal and the last words in the log into one phrase."""
    for mark, meaning in _LAST_WORDS:
        if mark in words:
            return f"was ended by {_name(number)}: {meaning}"
    if number == signal.SIGABRT:
        return "aborted (SIGABRT): the GPU driver or MLX gave up; its log has the reason"
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE):
        return f"crashed in native code ({_name(number)})"
    return f"was killed by signal {number} ({_name(number)})"
