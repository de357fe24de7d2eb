"""What the Log tab does with a large log and with a fast one, as its user sees it.

The tab runs alone in an app, in a process of its own on a pseudo-terminal, over a real daemon; this
program types and reads the screen.

Definitions
    open: from the key that shows the job until its last line has been written to the terminal.
    key: from a key's byte being typed until its answer (a counter in the footer's place) has been
        written to the terminal, while something else goes on. Stated: median and worst.
    flood: another process appends ``--rate`` lines a second to the log, in steps of 10 ms.
    behind: from the flood's end until its last line has been written to the terminal.
    search: from enter until the whole file has been searched for a text that is not in it.

Run it as ``python -m benchmarks.tui_log``. It makes a home of its own in the temporary folder, with
the log in it, and ends everything that it started.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import statistics
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from textual.app import App, ComposeResult
from textual.widgets import Static

from benchmarks.idle import cpu_seconds, fresh_daemon
from daemon.client import Client
from daemon.locate import Paths
from tui.log import LogPane
from tui.log.view import LogView

LINE = "2026-11-23 01:02:03 Iter {:>10}: Train loss 1.234, It/sec 2.345, Tokens/sec 678.901\n"
SIZE = (120, 36)


class Bench(App[None]):
    """The tab, a key that shows the job, and a key that counts."""

    BINDINGS = [("o", "open", "Open"), ("p", "ping", "Ping"), ("q", "quit", "Quit")]  # noqa: RUF012

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.pings = 0

    def compose(self) -> ComposeResult:
        """Make the tab and the counter."""
        yield LogPane(Client, id="log")
        yield Static("ready", id="ping")

    def action_open(self) -> None:
        """Show the job."""
        with Client() as studio:
            line = next(job for job in studio.jobs()["jobs"] if job["id"] == self.number)
        self.query_one(LogPane).show_job(line)
        self.query_one(LogView).focus()

    def action_ping(self) -> None:
        """Answer a key."""
        self.pings += 1
        self.query_one("#ping", Static).update(f"ping={self.pings};")


class Terminal:
    """The app's process, its keyboard and its screen."""

    def __init__(self, number: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tui_log", "--child", str(number)],
            stdin=slave,
            stdout=slave,
            stderr=slave,  # where Textual draws
            env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )
        os.close(slave)
        self._seen = b""
        self._changed = threading.Condition()
        self._pings = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:
                return
            with self._changed:
                self._seen = (self._seen + data)[-(1 << 18) :]
                self._changed.notify_all()

    def type(self, keys: bytes) -> None:
        """Type; what was written before is forgotten."""
        with self._changed:
            self._seen = b""
        os.write(self._master, keys)

    def wait(self, pattern: bytes, seconds: float = 60.0) -> float:
        """Wait until the screen was told what matches; return when that was."""
        found = re.compile(pattern)
        with self._changed:
            if not self._changed.wait_for(lambda: found.search(self._seen), seconds):
                raise TimeoutError(
                    f"{pattern!r} was not written; the last was {self._seen[-500:]!r}"
                )
        return time.perf_counter()

    def ping(self) -> float:
        """Type a key and return the seconds until its answer."""
        self._pings += 1
        began = time.perf_counter()
        os.write(self._master, b"p")
        return self.wait(b"ping=%d;" % self._pings) - began

    def ping_while(self, goes_on: Callable[[], bool]) -> list[float]:
        """Type keys, some twelve a second, while something goes on."""
        taken = []
        while goes_on():
            taken.append(self.ping())
            time.sleep(0.08)
        return taken


def fill(path: Path, size: int) -> int:
    """Write a log of about so many bytes; return its number of lines."""
    count = size // len(LINE.format(0))
    with path.open("w") as file:
        for first in range(0, count, 10_000):
            last = min(count, first + 10_000)
            file.write("".join(LINE.format(number) for number in range(first, last)))
    return count


def flood(path: Path, rate: int, seconds: float) -> None:
    """Append lines (the child's part)."""
    with path.open("a", buffering=1 << 20) as file:
        began, done = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            due = int(passed * rate)
            file.write("".join(LINE.format(number) for number in range(done, due)))
            file.flush()
            done = due
            time.sleep(0.01)
        file.write(f"the last of {done} lines\n")


def start_flood(path: Path, rate: int, seconds: float) -> subprocess.Popen[bytes]:
    """Let another process append lines."""
    command = [sys.executable, "-m", "benchmarks.tui_log", "--flood", str(path)]
    return subprocess.Popen([*command, "--rate", str(rate), "--seconds", str(seconds)])


def report(what: str, taken: list[float], cpu: float | None = None) -> None:
    """Print how long keys took."""
    middle, worst = 1000 * statistics.median(taken), 1000 * max(taken)
    used = "" if cpu is None else f", {100 * cpu:.0f} % of a core"
    print(f"{what}: key {middle:.0f} ms, worst {worst:.0f} ms of {len(taken)}{used}", flush=True)


def memory(process: psutil.Process) -> str:
    """Return the resident set."""
    return f"{process.memory_info().rss / 1e6:.0f} MB"


def during(
    terminal: Terminal, process: psutil.Process, child: subprocess.Popen[bytes]
) -> tuple[list[float], float]:
    """Type until the child ends; return how long keys took, and the app's share of a core."""
    began, before = time.perf_counter(), cpu_seconds(process)
    taken = terminal.ping_while(lambda: child.poll() is None)
    return taken, (cpu_seconds(process) - before) / (time.perf_counter() - began)


def measure(terminal: Terminal, log: Path, lines: int, rate: int, seconds: float) -> None:
    """Go through all of it."""
    process = psutil.Process(terminal.process.pid)
    terminal.wait(b"ready")
    report("nothing shown", terminal.ping_while(iter([True] * 20 + [False]).__next__))
    print(f"memory before: {memory(process)}")
    began = time.perf_counter()
    terminal.type(b"o")
    opened = terminal.wait(str(lines - 1).encode()) - began
    print(f"open {log.stat().st_size / 1e9:.2f} GB, {lines:,} lines: {1000 * opened:.0f} ms")
    print(f"memory with the log: {memory(process)}")

    taken, cpu = during(terminal, process, start_flood(log, rate, seconds))
    ended = time.perf_counter()
    late = terminal.wait(b"the last of") - ended
    report(f"following {rate:,} lines/s", taken, cpu)
    print(f"behind by {1000 * max(0.0, late):.0f} ms; memory {memory(process)}")

    terminal.type(b"\x1b[5~\x1b[5~")
    terminal.ping()
    taken, cpu = during(terminal, process, start_flood(log, rate, seconds))
    report(f"scrolled up beside {rate:,} lines/s", taken, cpu)
    terminal.wait(b"new lines")
    terminal.type(b"G")
    terminal.wait(b"the last of")

    for typed, answer in ((b"/", b"enter searches"), (b"zzz", b"zzz"), (b"\r", b"/zzz")):
        began = time.perf_counter()
        terminal.type(typed)
        terminal.wait(answer)
    taken = [terminal.ping()]
    while not re.search(rb"zzz  0 matches", terminal._seen):
        taken.append(terminal.ping())
        time.sleep(0.02)
    print(f"search all of it: {time.perf_counter() - began:.1f} s")
    report("searching", taken)
    began = time.perf_counter()
    terminal.type(b"g")
    first = terminal.wait(rb"Iter +0:") - began
    print(f"to the beginning: {1000 * first:.0f} ms; memory {memory(process)}")
    before = cpu_seconds(process)
    time.sleep(10)
    print(f"nothing goes on: {10 * (cpu_seconds(process) - before):.2f} % of a core")
    terminal.type(b"q")
    began = time.perf_counter()
    terminal.process.wait(30)
    print(f"quit: {1000 * (time.perf_counter() - began):.0f} ms")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--flood", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        Bench(given.child).run()
    elif given.flood:
        flood(given.flood, given.rate, given.seconds)
    else:
        with fresh_daemon(), Client() as studio:
            number = studio.submit("noop", {"steps": 3600, "step_seconds": 1.0})["id"]
            while studio.job(number)["state"] != "running":
                time.sleep(0.05)
            log = Paths.default().log(number)
            lines = fill(log, int(1e9 * given.gigabytes))
            terminal = Terminal(number)
            try:
                measure(terminal, log, lines, given.rate, given.seconds)
            finally:
                terminal.process.kill()
                terminal.process.wait()


if __name__ == "__main__":
    main()
