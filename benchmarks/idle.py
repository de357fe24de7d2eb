"""What studioq costs while nothing happens: CPU and memory of each of its processes.

A daemon on a fresh home runs one empty job, so that everything is loaded, rests for a moment, and
is then watched for a minute. CPU is user and system time divided by the time that passed, in per
cent of one core; memory is the resident set at the end. The engine is stated apart: it holds the
models.

Run it as ``python benchmarks/idle.py``; it needs psutil and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from daemon.client import Client
from daemon.errors import DaemonAwayError

OURS = ("daemon", "redis", "worker")
REST = 5.0


@contextmanager
def fresh_daemon() -> Iterator[None]:
    """Run a daemon on a home of its own, twice started: the first start migrates the ledger."""
    folder = Path(tempfile.mkdtemp(prefix="sqb"))
    os.environ.update(
        STUDIOQ_HOME=str(folder / "home"),
        STUDIOQ_RUNTIME=str(folder / "run"),
        STUDIOQ_LOCKS=str(folder / "locks"),
        STUDIOQ_TEST_KINDS="1",
        STUDIOQ_SYSTEM_CONFIG=str(folder / "none"),
    )
    os.environ.pop("STUDIOQ_SOCKET", None)
    start().terminate()
    daemon = start()
    try:
        yield
        with Client() as studio:
            studio.shutdown(worker=True)
        daemon.wait(60)
    finally:
        daemon.kill()
        daemon.wait()
        shutil.rmtree(folder)


def start() -> subprocess.Popen[bytes]:
    """Start a daemon, as soon as the home is free, and wait until it answers."""
    command = [str(Path(sys.executable).with_name("studioq-daemon"))]
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        if daemon.poll() is not None:
            daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            with Client() as studio:
                if studio.status()["pid"] == daemon.pid:
                    return daemon
        except DaemonAwayError:
            pass
        time.sleep(0.05)


def processes() -> dict[str, psutil.Process]:
    """Return the processes by their part."""
    with Client() as studio:
        status = studio.status()
    pids = {part: status[part]["pid"] for part in ("redis", "worker", "engine")}
    return {part: psutil.Process(pid) for part, pid in {"daemon": status["pid"], **pids}.items()}


def cpu_seconds(process: psutil.Process) -> float:
    """Return the user and system time that the process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with fresh_daemon():
        with Client() as studio:
            studio.wait(studio.submit("noop", {})["id"])
        time.sleep(REST)
        parts = processes()
        before = {part: cpu_seconds(process) for part, process in parts.items()}
        time.sleep(seconds)
        cpu = {part: (cpu_seconds(parts[part]) - before[part]) / seconds * 100 for part in parts}
        memory = {part: process.memory_info().rss / 1e6 for part, process in parts.items()}
    for part in parts:
        print(f"{part:8} {cpu[part]:6.2f} % of a core  {memory[part]:7.1f} MB")
    print(
        f"{'together':8} {sum(cpu[part] for part in OURS):6.2f} % of a core  "
        f"{sum(memory[part] for part in OURS):7.1f} MB (without the engine)"
    )


if __name__ == "__main__":
    main()
