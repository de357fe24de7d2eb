"""The daemon as a process, with the real Redis server and the real worker beside it."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import signal
import socket
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

from daemon.client import Client
from daemon.errors import ConflictError, DaemonAwayError
from daemon.locate import Paths

DAEMON = Path(sys.executable).with_name("studioq-daemon")
PATIENCE = 90.0


@dataclass(kw_only=True)
class Studio:
    """A home, its daemon's process, and a client."""

    paths: Paths
    environment: dict[str, str] = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.process = self.spawn()
        self.until(self.answers)

    def spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(DAEMON)], env=self.environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.tails()
        try:
            with self.client() as client:
                client.status()
        except DaemonAwayError:
            return False
        return True

    def client(self) -> Client:
        return Client(self.paths.socket)

    def status(self) -> Any:
        with self.client() as client:
            return client.status()

    def pid(self, part: str) -> int:
        """Return the process of redis, worker or engine, once it is there."""
        found = self.until(lambda: self.status()[part]["pid"])
        return int(found)

    def is_warm(self) -> bool:
        """Return whether everything runs."""
        status = self.status()
        return bool(status["engine"]["state"] == "ready" and status["redis"]["state"] == "ready")

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"never came true\n{self.tails()}")

    def tails(self) -> str:
        logs = sorted(self.paths.logs.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal the daemon and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE)
        return int(self.process.returncode)

    def stop(self) -> list[int]:
        """End everything; return what still runs of it."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        parts = ("redis", "worker", "engine")
        pids = [pid for part in parts if (pid := self.status()[part]["pid"])]
        with self.client() as client:
            client.shutdown(worker=True)
        assert self.process is not None
        self.process.communicate(timeout=PATIENCE)
        _, left = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 10)
        return [process.pid for process in left]


@pytest.fixture
def studio() -> Iterator[Studio]:
    folder = Path(tempfile.mkdtemp(prefix="sq", dir="/tmp"))
    folder.chmod(0o755)
    paths = Paths(home=folder / "home", runtime=folder / "run")
    environment = {
        **os.environ,
        "STUDIOQ_HOME": str(paths.home),
        "STUDIOQ_RUNTIME": str(paths.runtime),
        "STUDIOQ_LOCKS": str(folder / "gpu"),
        "STUDIOQ_TEST_KINDS": "1",
    }
    made = Studio(paths=paths, environment=environment)
    made.start()
    yield made
    left = made.stop()
    assert left == []
    shutil.rmtree(folder)


def test_a_job_runs_and_everything_ends_on_shutdown(studio: Studio) -> None:
    with studio.client() as client:
        number = client.submit("noop", {"steps": 3})["id"]
        ending = client.wait(number, timeout=PATIENCE)

    assert ending["state"] == "succeeded", studio.tails()
    assert studio.status()["redis"] == {
        "state": "ready",
        "pid": studio.pid("redis"),
        "url": f"unix://{studio.paths.redis_socket}",
        "managed": True,
    }
    assert stat_mode(studio.paths.socket) == 0o666
    assert stat_mode(studio.paths.runtime) == 0o755
    assert stat_mode(studio.paths.private) == 0o700
    assert stat_mode(studio.paths.home) == 0o700
    parts = [studio.pid(part) for part in ("redis", "worker", "engine")]
    assert studio.stop() == []
    assert [pid for pid in parts if psutil.pid_exists(pid)] == []
    assert not studio.paths.socket.exists()


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_second_daemon_is_refused_and_told_who_holds_the_home(studio: Studio) -> None:
    second = studio.spawn()
    _, stderr = second.communicate(timeout=PATIENCE)

    assert second.returncode == ConflictError.exit_code
    assert studio.process is not None
    assert f"process {studio.process.pid}" in stderr.decode()
    assert studio.answers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_new_daemon_adopts_what_the_old_one_left(studio: Studio, number: int) -> None:
    studio.until(studio.is_warm)
    before = {part: studio.pid(part) for part in ("redis", "worker", "engine")}
    with studio.client() as client:
        job = client.submit("noop", {"steps": 100, "step_seconds": 0.05})["id"]
        studio.until(lambda: client.job(job)["state"] == "running")

    status = studio.end(number)

    assert status == (0 if number == signal.SIGTERM else -number)
    assert all(psutil.pid_exists(pid) for pid in before.values())
    studio.start()
    studio.until(studio.is_warm)
    assert {part: studio.pid(part) for part in before} == before
    with studio.client() as client:
        assert client.wait(job, timeout=PATIENCE)["state"] == "succeeded"
        assert len(client.job(job)["attempts"]) == 1


@pytest.mark.parametrize("part", ["redis", "worker"])
def test_what_dies_is_started_again_and_queued_jobs_run(studio: Studio, part: str) -> None:
    studio.until(studio.is_warm)
    victim = studio.pid(part)
    with studio.client() as client:
        client.drain()
        jobs = [client.submit("noop", {})["id"] for _ in range(5)]

        os.kill(victim, signal.SIGKILL)
        studio.until(lambda: studio.pid(part) != victim)
        client.resume()

        ends = [client.wait(number, timeout=PATIENCE)["state"] for number in jobs]
    assert ends == ["succeeded"] * 5, studio.tails()


def test_redis_that_lost_everything_gets_the_queue_again(studio: Studio) -> None:
    studio.until(studio.is_warm)
    with studio.client() as client:
        client.drain()
        client.submit("noop", {})
        studio.until(lambda: b":1" in redis_says(studio, b"LLEN rq:queue:studioq"))

        redis_says(studio, b"FLUSHALL")

        studio.until(lambda: b":1" in redis_says(studio, b"LLEN rq:queue:studioq"))


def redis_says(studio: Studio, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(studio.paths.redis_socket))
        connection.sendall(command + b"\r\n")
        return connection.recv(4096)


def test_two_servers_never_share_the_socket(studio: Studio) -> None:
    """A server without its record is adopted, not doubled."""
    studio.until(studio.is_warm)
    before = studio.pid("redis")
    studio.end(signal.SIGKILL)
    (studio.paths.locks / "redis.json").unlink()

    studio.start()

    studio.until(studio.is_warm)
    studio.until(lambda: studio.status()["redis"]["pid"] == before)


def test_a_stopped_job_goes_on_after_a_full_stop(studio: Studio) -> None:
    with studio.client() as client:
        spec = {"steps": 100, "step_seconds": 0.05, "checkpoint_every": 1}
        number = client.submit("noop", spec)["id"]
        studio.until(lambda: done(client.job(number)) > 2)

    assert studio.stop() == []
    studio.start()

    with studio.client() as client:
        assert client.wait(number, timeout=PATIENCE)["state"] == "succeeded"
        shown: Any = client.job(number)
    first, second = shown["attempts"]
    assert first["state"] == "stopped"
    assert second["resumed_step"] is not None


def done(job: Any) -> int:
    return int(job["progress"]["done"])


def test_a_shutdown_with_drain_lets_the_running_job_end(studio: Studio) -> None:
    with studio.client() as client:
        running = client.submit("noop", {"steps": 20, "step_seconds": 0.05})["id"]
        studio.until(lambda: client.job(running)["state"] == "running")
        waiting = client.submit("noop", {})["id"]
        client.shutdown(worker=True, drain=True)
    assert studio.process is not None
    studio.process.communicate(timeout=PATIENCE)

    studio.start()

    with studio.client() as client:
        assert client.job(running)["state"] == "succeeded"
        assert len(client.job(running)["attempts"]) == 1
        assert client.wait(waiting, timeout=PATIENCE)["state"] == "succeeded"
        assert client.status()["draining"] is False


def test_an_interrupt_ends_everything(studio: Studio) -> None:
    studio.until(studio.is_warm)
    parts = [psutil.Process(studio.pid(part)) for part in ("redis", "worker", "engine")]

    assert studio.end(signal.SIGINT) == 0

    _, left = psutil.wait_procs(parts, timeout=10)
    assert left == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_log_names_the_signal_that_ended_the_daemon(studio: Studio, number: int) -> None:
    studio.end(number)
    worker = number == signal.SIGINT
    told = f"action=shutdown_begun by={signal.Signals(number).name} worker={worker} drain=False"
    assert told in (studio.paths.logs / "daemon.log").read_text()


def test_the_log_names_the_user_who_ended_the_daemon(studio: Studio) -> None:
    studio.stop()
    name = pwd.getpwuid(os.getuid()).pw_name
    told = f'action=shutdown_begun by="user {name} (uid {os.getuid()})" worker=True drain=False'
    assert told in (studio.paths.logs / "daemon.log").read_text()


def test_a_job_starts_when_its_time_has_come(studio: Studio) -> None:
    with studio.client() as client:
        job = client.submit("noop", {}, begin_at=time.time() + 1.0)
        assert job["state"] == "waiting"
        assert job["reason"] == "waits for its start time"
        assert client.wait(job["id"], timeout=PATIENCE)["state"] == "succeeded"


def test_another_users_process_is_that_user(studio: Studio) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can speak as another user")
    # The credentials that the kernel reports are those of the moment of ``connect``.
    connection = http.client.HTTPConnection("studioq")
    connection.sock = socket.socket(socket.AF_UNIX)
    os.seteuid(65_534)
    try:
        connection.sock.connect(str(studio.paths.socket))
    finally:
        os.seteuid(0)

    connection.request("GET", "/status", headers={"X-Forwarded-For": "0"})
    me = json.loads(connection.getresponse().read())["me"]
    connection.close()

    assert (me["uid"], me["admin"]) == (65_534, False)


def test_a_wrong_configuration_is_named(studio: Studio) -> None:
    assert studio.stop() == []
    studio.paths.config.write_text("redis_uri = 'redis://x'\n")

    process = studio.spawn()
    _, stderr = process.communicate(timeout=PATIENCE)
    studio.paths.config.unlink()

    assert process.returncode == 2
    assert str(studio.paths.config) in stderr.decode()
    assert "redis_uri" in stderr.decode()


def test_a_model_that_cannot_be_fetched_fails_its_jobs_with_the_reason(studio: Studio) -> None:
    assert studio.stop() == []
    # No hub answers there, so that the test does not depend on this machine's network.
    studio.environment |= {"HF_ENDPOINT": "http://127.0.0.1:9"}
    studio.start()
    with studio.client() as client:
        job = client.submit("infer", {"model": "nobody/nothing", "prompt": "x"})
        assert job["state"] == "waiting"

        ending = client.wait(job["id"], timeout=PATIENCE)

    assert ending["state"] == "failed"
    assert ending["error"] is not None
    assert "nobody/nothing" in ending["error"]["message"]
    assert ending["error"]["remedy"]
    assert list(studio.paths.models.iterdir()) == []


def test_an_idle_worker_of_another_version_is_replaced(studio: Studio) -> None:
    studio.until(studio.is_warm)
    before = studio.pid("worker")
    record = studio.paths.locks / "worker.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"version": "0.0.1"}))

    studio.until(lambda: studio.pid("worker") != before)

    assert not psutil.pid_exists(before)


def test_a_configured_redis_is_used_and_left_alone(studio: Studio, any_redis: Any) -> None:
    assert studio.stop() == []
    studio.paths.config.write_text(f'redis_url = "{any_redis.url}"\n')
    studio.start()
    with studio.client() as client:
        assert client.wait(client.submit("noop", {})["id"], PATIENCE)["state"] == "succeeded"
        assert client.status()["redis"]["managed"] is False

    assert studio.stop() == []

    assert psutil.pid_exists(any_redis.pid)
    assert (
        not (studio.paths.locks / "redis.json").exists() or not studio.paths.redis_socket.exists()
    )
    studio.paths.config.unlink()
