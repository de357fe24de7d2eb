"""Whose process is at the other end of a Unix socket, as the kernel knows it.

The rule it protects: who somebody is, is asked of the kernel and of nobody else. Standard library
only, and little of it: the daemon asks about its clients here, and every client about its daemon.
"""

from __future__ import annotations

import socket
import sys
from typing import Protocol

# macOS, <sys/un.h> and <sys/ucred.h>: the level and option, and struct xucred, which begins with
# the version (0) and the effective uid, 4 bytes each, and ends with 16 groups.
_SOL_LOCAL = 0
_LOCAL_PEERCRED = 1
_XUCRED_BYTES = 76

# Linux, unix(7): struct ucred is pid, uid, gid, 4 bytes each.
_UCRED_BYTES = 12


class _Socket(Protocol):
    def getsockopt(self, level: int, option: int, buflen: int, /) -> bytes: ...


def peer_uid(connection: _Socket) -> int:
    """Return the uid of the process that opened, or listens at, the other end of ``connection``.

    Raises:
        OSError: the kernel does not say.
    """
    if sys.platform == "darwin":
        content = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        version = int.from_bytes(content[:4], sys.byteorder)
        if version != 0:
            raise OSError(f"struct xucred has version {version}, not 0")
    else:
        content = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED_BYTES)
    return int.from_bytes(content[4:8], sys.byteorder)
