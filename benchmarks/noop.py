"""How fast an empty job goes through the whole of studioq, over one kept connection.

Definitions
    submitted → first event: from just before the client sends ``POST /jobs`` until the first event
        of the job's engine is committed to the ledger, where every reader can see it. The engine is
        warm (it has run a job), the queue is empty, one job at a time. The benchmark looks at the
        ledger itself, every half millisecond, so that no request of its own disturbs the daemon.
    jobs per second: jobs divided by the time from the first submission, over one connection and
        without waiting for anything but its answer, until the last job has succeeded.

Run it as ``python benchmarks/noop.py``; it makes a home of its own in the temporary folder and ends
everything that it started.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from daemon.client import Client

LOOK_EVERY = 0.0005
PATIENCE = 120.0


@contextmanager
def fresh_daemon() -> Iterator[Path]:
    """Run a daemon on a home of its own; yield the home's folder."""
    folder = Path(tempfile.mkdtemp(prefix="sqb"))
    os.environ.update(
        STUDIOQ_HOME=str(folder / "home"),
        STUDIOQ_RUNTIME=str(folder / "run"),
        STUDIOQ_LOCKS=str(folder / "locks"),
        STUDIOQ_TEST_KINDS="1",
        STUDIOQ_SYSTEM_CONFIG=str(folder / "none"),
    )
    os.environ.pop("STUDIOQ_SOCKET", None)
    command = [str(Path(sys.executable).with_name("studioq-daemon"))]
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for((folder / "run" / "studioq.sock").exists)
        yield folder / "home"
        with Client() as studio:
            studio.shutdown(worker=True)
        daemon.wait(PATIENCE)
    finally:
        daemon.kill()
        daemon.wait()
        shutil.rmtree(folder)


def wait_for(condition: object, every: float = 0.01) -> None:
    """Return when ``condition()`` is true."""
    assert callable(condition)
    deadline = time.perf_counter() + PATIENCE
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError("nothing came within two minutes")
        time.sleep(every)


def open_ledger(home: Path) -> sqlite3.Connection:
    """Return a connection that only reads."""
    return sqlite3.connect(f"file:{home / 'ledger.db'}?mode=ro", uri=True, isolation_level=None)


def first_event(ledger: sqlite3.Connection, number: int) -> bool:
    """Return whether an event of the job's engine stands in the ledger."""
    query = "SELECT progress_total > 0 FROM jobs WHERE id = ?"
    return bool(ledger.execute(query, (number,)).fetchone()[0])


def ended(ledger: sqlite3.Connection, number: int) -> bool:
    """Return whether the job has succeeded; fail if it did not."""
    (state,) = ledger.execute("SELECT state FROM jobs WHERE id = ?", (number,)).fetchone()
    assert state not in {"failed", "cancelled"}, state
    return bool(state == "succeeded")


def measure_latency(studio: Client, ledger: sqlite3.Connection, count: int) -> list[float]:
    """Return the seconds from submission to first event of ``count`` jobs, one after the other."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        number = studio.submit("noop", {"steps": 1})["id"]
        wait_for(lambda number=number: first_event(ledger, number), LOOK_EVERY)
        seconds.append(time.perf_counter() - begun)
        wait_for(lambda number=number: ended(ledger, number), 0.002)
        time.sleep(0.01)
    return seconds


def measure_rate(studio: Client, ledger: sqlite3.Connection, count: int) -> tuple[float, float]:
    """Return submissions per second and jobs per second from end to end."""
    begun = time.perf_counter()
    number = [studio.submit("noop", {})["id"] for _ in range(count)][-1]
    submitted = time.perf_counter() - begun
    wait_for(lambda: ended(ledger, number), 0.005)
    return count / submitted, count / (time.perf_counter() - begun)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-jobs", type=int, default=200)
    parser.add_argument("--rate-jobs", type=int, default=1000)
    options = parser.parse_args()
    with fresh_daemon() as home, Client() as studio:
        studio.wait(studio.submit("noop", {})["id"])
        with closing(open_ledger(home)) as ledger:
            latency = measure_latency(studio, ledger, options.latency_jobs)
            submitted, done = measure_rate(studio, ledger, options.rate_jobs)
    ordered = sorted(latency)
    median, p95 = statistics.median(ordered), ordered[int(len(ordered) * 0.95)]
    print(f"submitted to first event, {len(ordered)} jobs: ", end="")
    print(f"median {median * 1e3:.1f} ms, 95 % {p95 * 1e3:.1f} ms, most {ordered[-1] * 1e3:.1f} ms")
    print(f"{options.rate_jobs} jobs: {submitted:.0f} submissions/s, {done:.0f} jobs/s end to end")


if __name__ == "__main__":
    main()
