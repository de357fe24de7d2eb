"""The daemon's parts, put together around one event loop and taken apart again.

The rule it protects: parts end in the reverse order of their beginning, so that nothing writes to a
closed writer, and what was announced has been pushed. Worker and Redis are no part: they go on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass

from daemon.access import People
from daemon.api.app import create_app
from daemon.api.server import ApiServer
from daemon.api.service import Service
from daemon.api.watch import JobWatch
from daemon.config import Config
from daemon.downloads import Downloads
from daemon.filestore import FileStore
from daemon.ledger import queries
from daemon.ledger.pulse import Pulse
from daemon.ledger.revision import ledger_id
from daemon.ledger.store import Ledger
from daemon.ledger.writer import Writer
from daemon.locate import Paths
from daemon.logs import note
from daemon.models import ModelRoots
from daemon.responsive import be_responsive
from daemon.submission import Desk
from daemon.supervisor.announcer import Announcer
from daemon.supervisor.housekeeping import Housekeeping
from daemon.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Home:
    """What was opened before the event loop began."""

    paths: Paths
    config: Config
    ledger: Ledger
    clock: Callable[[], float]
    started_at: float


@dataclass(frozen=True, kw_only=True)
class _Parts:
    writer: Writer
    announcer: Announcer
    downloads: Downloads
    supervisor: Supervisor


async def serve(home: Home, listener: socket.socket) -> None:
    """Answer on ``listener`` until the daemon is told to end."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    with ExitStack() as stack:
        parts = _begin(home, stack, lambda: loop.call_soon_threadsafe(ending.set))
        pulse = Pulse(home.paths.ledger)
        stack.callback(pulse.close)
        watch = _job_watch(home.ledger, pulse)
        app = create_app(_service(home, parts, watch))
        server = ApiServer(app, ending=ending, release=watch.close)
        _listen_to_signals(loop, parts.supervisor, ending)
        be_responsive()
        after = round((home.clock() - home.started_at) * 1000)
        note(log, "ready", socket=home.paths.socket, after_ms=after)
        await server.serve(sockets=[listener])
        note(log, "ending")


def _begin(home: Home, stack: ExitStack, ended: Callable[[], object]) -> _Parts:
    """Begin the parts that have threads; ``stack`` ends them."""
    ledger, paths = home.ledger, home.paths
    writer = Writer(ledger)
    stack.callback(writer.close)
    with ledger.reading() as session:
        name = ledger_id(session)
    url = home.config.redis_address(paths)
    announcer = Announcer(url, name)
    downloads = Downloads(
        ledger=ledger, writer=writer, root=paths.models, announce=announcer.announce
    )
    store = FileStore(paths.blobs)
    store.remove_parts()
    duties = Housekeeping(
        ledger=ledger,
        writer=writer,
        store=store,
        models=paths.models,
        url=url,
        ledger_id=name,
        announce=announcer.announce,
        clock=home.clock,
    )
    supervisor = Supervisor(
        paths, home.config, ledger=ledger, writer=writer, duties=duties, ended=ended
    )
    duties.start()
    for part in (announcer, downloads, supervisor):
        part.start()
        stack.callback(part.close)
    return _Parts(writer=writer, announcer=announcer, downloads=downloads, supervisor=supervisor)


def _job_watch(ledger: Ledger, pulse: Pulse) -> JobWatch:
    def read_ended(numbers: Collection[int]) -> Collection[int]:
        with ledger.reading() as session:
            found = queries.standings(session, list(numbers))
        return [number for number, job in found.items() if job.ended]

    return JobWatch(pulse.changed, read_ended)


def _service(home: Home, parts: _Parts, watch: JobWatch) -> Service:
    models = ModelRoots(home.config.all_roots(home.paths))
    return Service(
        paths=home.paths,
        config=home.config,
        ledger=home.ledger,
        writer=parts.writer,
        people=People(admins=frozenset(home.config.admins)),
        watch=watch,
        desk=Desk(ledger=home.ledger, paths=home.paths, models=models),
        store=FileStore(home.paths.blobs),
        models=models,
        announcer=parts.announcer,
        downloads=parts.downloads,
        processes=parts.supervisor,
        clock=home.clock,
        started_at=home.started_at,
    )


def _listen_to_signals(
    loop: asyncio.AbstractEventLoop, supervisor: Supervisor, ending: asyncio.Event
) -> None:
    """SIGTERM ends the daemon alone; ctrl-C ends all that it started, twice: the daemon at once."""

    def end_alone(by: str) -> None:
        note(log, "shutdown_begun", by=by, worker=False, drain=False)
        ending.set()

    def interrupted() -> None:
        loop.add_signal_handler(signal.SIGINT, end_alone, "a second SIGINT")
        supervisor.begin_shutdown(worker=True, drain=False, by="SIGINT")

    loop.add_signal_handler(signal.SIGTERM, end_alone, "SIGTERM")
    loop.add_signal_handler(signal.SIGINT, interrupted)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    loop.add_signal_handler(signal.SIGCHLD, supervisor.wake)
