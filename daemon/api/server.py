"""uvicorn on one Unix socket, without its clock and its signal handlers.

The rule it protects: a client never sees a socket that it may not open. The socket gets its mode
under another name before it is renamed to where clients look, and only the daemon that holds the
home's lock does that. uvicorn's own loop wakes ten times a second; this one sleeps until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from daemon import __version__
from daemon.api.peer import PeerProtocol

BACKLOG = 1024

# Seconds an idle connection is kept, and a running answer is waited for at the end.
KEEP_ALIVE = 120
LAST_ANSWERS = 5


class ApiServer(uvicorn.Server):
    """Serves ``app`` until ``ending`` is set; then ``release`` lets go all who wait for long."""

    def __init__(self, app: Any, *, ending: asyncio.Event, release: Callable[[], None]) -> None:
        super().__init__(_config(app))
        self._ending = ending
        self._release = release

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen; every answer carries the version."""
        self.server_state.default_headers = list(self.config.encoded_headers)
        await super().startup(sockets)

    async def main_loop(self) -> None:
        """Sleep until the end."""
        await self._ending.wait()
        self._release()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the daemon."""
        yield


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=PeerProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        headers=[("Studioq-Version", __version__)],
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=LAST_ANSWERS,
        backlog=BACKLOG,
    )


def bind(path: Path) -> socket.socket:
    """Open the API's socket, mode 0666; the caller holds the home's lock."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        listener.bind(str(fresh))
        fresh.chmod(0o666)
        listener.listen(BACKLOG)
        fresh.rename(path)
    except OSError:
        listener.close()
        fresh.unlink(missing_ok=True)
        raise
    return listener
