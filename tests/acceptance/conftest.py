"""A studioq of one's own: a fresh home, the installed commands, and nothing left running.

These tests use the program as its users do: through the ``studioq`` command and signals. They end
only processes that the status of their own home names.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

STUDIOQ = Path(sys.executable).with_name("studioq")
PATIENCE = 180.0


@dataclass(frozen=True, kw_only=True)
class Home:
    """A studioq home and the commands on it."""

    folder: Path
    environment: dict[str, str] = field(repr=False)

    def run(
        self, *words: str | Path, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``studioq`` with these words to its end."""
        done = subprocess.run(
            [STUDIOQ, *map(str, words)],
            env=self.environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def submit(self, *words: str | Path) -> int:
        """Submit a job and return its number."""
        return int(self.run(*words).stdout)

    def json(self, *words: str | Path) -> Any:
        """Run a reading command with ``--json``."""
        return json.loads(self.run(*words, "--json").stdout)

    def job(self, number: int) -> Any:
        """Return the job as ``show --json`` gives it."""
        return self.json("show", str(number))

    def wait(self, number: int) -> Any:
        """Wait for the job's end and return it."""
        self.run("wait", str(number), "--timeout", f"{PATIENCE:.0f}s", check=False)
        return self.job(number)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Ask again and again until the condition holds, and return what it gave."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"never came true: {condition}\n{self.tails()}")

    def tails(self) -> str:
        """Return the end of every log, for a failing test's message."""
        logs = sorted((self.folder / "home" / "logs").glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    def status(self) -> Any:
        """Return ``studioq status --json``."""
        return self.json("status")

    def pid(self, part: str) -> int:
        """Return the process id of daemon, redis, worker or engine."""

        def named() -> int | None:
            status = self.status()
            pid: int | None = status["pid"] if part == "daemon" else status[part]["pid"]
            return pid

        return int(self.until(named))

    def kill(self, *parts: str) -> None:
        """End these parts of this home with SIGKILL and see them gone."""
        victims = [psutil.Process(self.pid(part)) for part in parts]
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
        psutil.wait_procs(victims, timeout=10)


def lives(pid: int) -> bool:
    """Say whether a process is there; one that only waits for its parent to look is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def make_home(folder: Path) -> Home:
    """Describe a home below ``folder``; its sockets get a short path."""
    environment = {
        **os.environ,
        "STUDIOQ_HOME": str(folder / "home"),
        "STUDIOQ_RUNTIME": str(folder / "run"),
        "STUDIOQ_LOCKS": str(folder / "gpu"),
        "STUDIOQ_SYSTEM_CONFIG": str(folder / "no-such-file"),
        "STUDIOQ_TEST_KINDS": "1",
        "NO_COLOR": "1",
    }
    environment.pop("STUDIOQ_SOCKET", None)
    return Home(folder=folder, environment=environment)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """A running daemon with a home of its own, ended with everything it started."""
    folder = Path(tempfile.mkdtemp(prefix="sq", dir="/tmp"))
    made = make_home(folder)
    made.run("daemon", "start")
    yield made
    parts = [made.pid(part) for part in ("daemon", "worker", "engine", "redis")]
    made.run("daemon", "stop")
    assert [pid for pid in parts if lives(pid)] == [], "stop left something running"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def sql_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rows in WikiSQL's grammar."""
    folder = tmp_path_factory.mktemp("rows")
    for name, count in (("train", 32), ("valid", 6), ("test", 6)):
        lines = [
            json.dumps(
                {
                    "text": f"table: t-{index}\ncolumns: name, built\nQ: When was ship {index} "
                    f"built?\nA: SELECT built FROM t-{index} WHERE name = 'ship {index}'"
                }
            )
            for index in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny(home: Home, tiny_model: Path) -> str:
    """The name of a tiny language model under the home's model root."""
    target = home.folder / "home" / "models" / "tiny"
    if not target.exists():
        shutil.copytree(tiny_model, target)
    return "tiny"
