"""The real application on a real socket, in a thread, over a real ledger; without Redis and worker.

Peers of other uids are made by changing the effective uid for the moment of ``connect``: that is
when the kernel notes who connects.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon.access import People
from daemon.api.app import create_app
from daemon.api.server import ApiServer, bind
from daemon.api.service import Service
from daemon.api.watch import JobWatch
from daemon.config import Config
from daemon.downloads import Downloads
from daemon.filestore import FileStore
from daemon.ledger import queries
from daemon.ledger.migrate import open_ledger
from daemon.ledger.pulse import Pulse
from daemon.ledger.store import Ledger
from daemon.ledger.writer import Writer
from daemon.locate import Paths
from daemon.models import ModelRoots
from daemon.submission import Desk
from daemon.supervisor.announcer import Announcer
from daemon.supervisor.housekeeping import Housekeeping
from daemon.supervisor.supervisor import Supervisor

NOBODY = 65_534


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


@dataclass(kw_only=True)
class Peer:
    """A client with a kept connection, made by the user ``uid``."""

    path: Path
    uid: int | None = None
    connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = http.client.HTTPConnection("studioq", timeout=30)

    def _connect(self) -> None:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.settimeout(30)
        before = os.geteuid()
        if self.uid is not None:
            os.seteuid(self.uid)
        try:
            opened.connect(str(self.path))
        finally:
            os.seteuid(before)
        self.connection.sock = opened

    def ask(
        self,
        method: str,
        target: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request; a body that is not bytes goes as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if self.connection.sock is None:
            self._connect()
        self.connection.request(method, target, body=data, headers=headers or {})
        response = self.connection.getresponse()
        return Answer(
            status=response.status,
            headers={key.lower(): value for key, value in response.getheaders()},
            body=response.read(),
        )

    def close(self) -> None:
        self.connection.close()


@dataclass(kw_only=True)
class Stage:
    """A served home."""

    paths: Paths
    ledger: Ledger
    writer: Writer
    service: Service
    peers: list[Peer] = field(default_factory=list)

    def peer(self, uid: int | None = None) -> Peer:
        """Return a new client of the user ``uid``, or of the one who runs the tests."""
        peer = Peer(path=self.paths.socket, uid=uid)
        self.peers.append(peer)
        return peer


@pytest.fixture
def paths() -> Iterator[Paths]:
    folder = Path(tempfile.mkdtemp(prefix="sq", dir="/tmp"))
    folder.chmod(0o755)
    made = Paths(home=folder / "home", runtime=folder / "run")
    made.create()
    yield made
    shutil.rmtree(folder)


@pytest.fixture
def stage(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("STUDIOQ_TEST_KINDS", "1")
    ledger = open_ledger(paths.ledger)
    writer = Writer(ledger, pause=0.0)
    announcer = Announcer(f"unix://{paths.redis_socket}", "00000000")
    announcer.start()
    pulse = Pulse(paths.ledger)
    service = _service(paths, ledger, writer, announcer, pulse)
    stage = Stage(paths=paths, ledger=ledger, writer=writer, service=service)
    with Served(service):
        yield stage
        for peer in stage.peers:
            peer.close()
    announcer.close()
    writer.close()
    pulse.close()
    ledger.close()


def _service(
    paths: Paths, ledger: Ledger, writer: Writer, announcer: Announcer, pulse: Pulse
) -> Service:
    config = Config(max_upload_bytes=1_000_000)
    models = ModelRoots((paths.models,))
    store = FileStore(paths.blobs)
    clock: Callable[[], float] = lambda: 1_800_000_000.0  # noqa: E731
    duties = Housekeeping(
        ledger=ledger,
        writer=writer,
        store=store,
        models=paths.models,
        url="",
        ledger_id="00000000",
        announce=announcer.announce,
        clock=clock,
    )

    def read_ended(numbers: Any) -> list[int]:
        with ledger.reading() as session:
            found = queries.standings(session, list(numbers))
        return [number for number, job in found.items() if job.ended]

    return Service(
        paths=paths,
        config=config,
        ledger=ledger,
        writer=writer,
        people=People(admins=frozenset({"uid-4321"})),
        watch=JobWatch(pulse.changed, read_ended, every=0.01),
        desk=Desk(ledger=ledger, paths=paths, models=models, clock=clock),
        store=store,
        models=models,
        announcer=announcer,
        downloads=Downloads(
            ledger=ledger, writer=writer, root=paths.models, announce=announcer.announce
        ),
        processes=Supervisor(
            paths, config, ledger=ledger, writer=writer, duties=duties, ended=lambda: None
        ),
        clock=clock,
        started_at=1_800_000_000.0,
    )


class Served:
    """Runs the server in a thread for the ``with`` block."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._listener = bind(service.paths.socket)
        self._ready = threading.Event()
        self._end: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._end = lambda: loop.call_soon_threadsafe(ending.set)
        self._ready.set()
        server = ApiServer(
            create_app(self._service), ending=ending, release=self._service.watch.close
        )
        await server.serve(sockets=[self._listener])

    def __enter__(self) -> None:
        self._thread.start()
        self._ready.wait()

    def __exit__(self, *_: object) -> None:
        self._end()
        self._thread.join()


@pytest.fixture
def peer(stage: Stage) -> Peer:
    """The one who runs the tests, who is also the daemon's account and so an admin."""
    return stage.peer()


@pytest.fixture
def stranger(stage: Stage) -> Peer:
    """Another user, no admin."""
    if os.getuid() != 0:
        pytest.skip("only root can speak as another user")
    return stage.peer(NOBODY)


@pytest.fixture
def other(stage: Stage) -> Peer:
    """A third user, no admin."""
    if os.getuid() != 0:
        pytest.skip("only root can speak as another user")
    return stage.peer(NOBODY - 1)


@pytest.fixture
def submit() -> Callable[..., int]:
    """Submit a noop job as a peer and return its number."""

    def _submit(peer: Peer, **request: Any) -> int:
        answer = peer.ask("POST", "/jobs", {"kind": "noop", "spec": {}} | request)
        assert answer.status == 201, answer.body
        return int(answer.json["id"])

    return _submit
