"""Starting a daemon in the background, and waiting until it answers.

The rule it protects: of many clients that find no daemon at once, one starts it and the others
wait; and a daemon that dies at its start says why in the client's terminal.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from daemon.client.transport import Transport
from daemon.client.trust import admit
from daemon.errors import DaemonAwayError
from daemon.locate import Address, Paths, Trust

# Seconds a daemon has to answer (it may migrate a large ledger), and between two looks.
START_TIMEOUT = 60.0
PAUSE = 0.02

_TAIL_LINES = 12
_TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long to wait, by which clock."""

    seconds: float = START_TIMEOUT
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def daemon_command(executable: Path | None = None) -> list[str]:
    """Return the command of the daemon that belongs to this interpreter."""
    python = executable or Path(sys.executable)
    script = python.parent / "studioq-daemon"
    if script.exists():
        return [str(script)]
    return [str(python), "-c", "from daemon.main import main; main()"]


def start_daemon(
    paths: Paths, *, say: Callable[[str], None], timing: Timing | None = None
) -> int | None:
    """Start a daemon for the home of ``paths`` unless one answers; return its pid, else None.

    Raises:
        DaemonAwayError: it died, or did not answer in time; with the end of its log.
    """
    timing = timing or Timing()
    log = paths.logs / "daemon.log"
    paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (paths.logs, paths.locks):
        folder.mkdir(exist_ok=True)
    with _alone(paths.locks / "start.lock"):
        if answers(paths.socket):
            return None
        say(f"starting a daemon for {paths.home} (its log: {log})")
        begin = log.stat().st_size if log.exists() else 0
        process = _launch(paths, log)
        if _wait(process, paths.socket, timing):
            return process.pid
    raise _failure(process, log, begin, timing.seconds)


def answers(socket: Path) -> bool:
    """Return whether this user's daemon answers at ``socket``.

    Raises:
        ConfigError: somebody else's does.
    """
    own = Address(socket=socket, autostart=True, trust=Trust.OWN)
    transport = Transport(str(socket), timeout=5.0, admit=partial(admit, own))
    try:
        transport.json("GET", "/status")
    except DaemonAwayError:
        return False
    finally:
        transport.close()
    return True


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a lock that the system takes back should this process die."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _launch(paths: Paths, log: Path) -> subprocess.Popen[bytes]:
    """Start the daemon detached: no terminal, no shared session, its output in the log."""
    environment = os.environ | {
        "STUDIOQ_HOME": str(paths.home),
        "STUDIOQ_RUNTIME": str(paths.runtime),
    }
    with log.open("ab") as output:
        return subprocess.Popen(
            daemon_command(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=environment,
        )


def _wait(process: subprocess.Popen[bytes], socket: Path, timing: Timing) -> bool:
    """Wait until the daemon answers; false when it died or the time is up."""
    deadline = timing.clock() + timing.seconds
    while timing.clock() < deadline:
        if answers(socket):
            process.returncode = 0  # detached on purpose: no warning about a child still alive
            return True
        if process.poll() is not None:
            return answers(socket)
        timing.sleep(PAUSE)
    return False


def _failure(
    process: subprocess.Popen[bytes], log: Path, begin: int, seconds: float
) -> DaemonAwayError:
    code = process.poll()
    what = f"does not answer after {seconds:g} s" if code is None else f"ended with status {code}"
    tail = log_tail(log, begin)
    message = f"the daemon that was started {what}" + (
        f"; the end of its log:\n{tail}" if tail else ""
    )
    return DaemonAwayError(message, remedy=f"read {log}, or run: studioq daemon run")


def log_tail(log: Path, begin: int = 0) -> str:
    """Return the last lines of ``log`` that were written after byte ``begin``, indented."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
