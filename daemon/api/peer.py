"""Requests that know whose process sent them.

The rule it protects: the kernel's word stays apart from what a client can say. The uid is handed to
the application in ``scope["state"]["peer_uid"]``, not in ``scope["client"]``: that one can be
overwritten from a request's headers.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from daemon.peers import peer_uid

PEER = "peer_uid"


class PeerProtocol(H11Protocol):
    """HTTP/1.1 whose requests know the uid of their peer; without one there is no connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who has connected."""
        super().connection_made(transport)
        try:
            uid = peer_uid(transport.get_extra_info("socket"))
        except OSError:
            transport.abort()
            return
        self.app_state = {**self.app_state, PEER: uid}
