"""Making what was written last: through the system's cache and the disk's own.

The rule this module protects: what is said to be on the disk survives a power cut. On macOS fsync
leaves the data in the disk's cache; F_FULLFSYNC does not. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO, Any

_UNKNOWN = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})


def sync_file(file: IO[Any]) -> None:
    """Flush ``file`` through to the disk itself (on macOS that takes F_FULLFSYNC).

    Raises:
        OSError: the disk is full or broken.
    """
    file.flush()
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None or not _full_sync(file.fileno(), full):
        os.fsync(file.fileno())


def _full_sync(descriptor: int, command: int) -> bool:
    """Return False where the file system, as those of other machines, knows fsync only."""
    try:
        fcntl.fcntl(descriptor, command)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
