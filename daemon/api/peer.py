"""Whose process is at the other end of a Unix socket, as the kernel knows it.

The uid is handed to the application in ``scope["state"]["peer_uid"]``, not in ``scope["client"]``:
that one can be overwritten from a request's headers.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Protocol

from uvicorn.protocols.http.h11_impl import H11Protocol

# macOS, <sys/un.h> and <sys/ucred.h>: the level and option, and struct xucred, which begins with
# the version (0) and the effective uid and ends with 16 groups.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_XUCRED_BYTES = 76
_XUCRED_HEAD = struct.Struct("=II")

# Linux, unix(7): struct ucred is pid, uid, gid.
_UCRED = struct.Struct("=iII")

PEER = "peer_uid"


class _Socket(Protocol):
    def getsockopt(self, level: int, option: int, buflen: int, /) -> bytes: ...


def peer_uid(connection: _Socket) -> int:
    """Return the uid of the process that opened ``connection``.

    Raises:
        OSError: the kernel does not say.
    """
    if sys.platform == "darwin":
        content = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        version, uid = _XUCRED_HEAD.unpack_from(content)
        if version != 0:
            raise OSError(f"struct xucred has version {version}, not 0")
        return int(uid)
    content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(content)[1])


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
