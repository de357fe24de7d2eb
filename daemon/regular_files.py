"""Opening what somebody put into a folder, and nothing that only looks like a file.

The rule this module protects: whoever opens a file does not wait for it. A pipe, a socket or a
device under a file's name is refused as soon as it is opened, before a byte is asked of it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from daemon.errors import ModelError

MOST_SETTINGS = 32 * 2**20  # bytes; the longest index of a published model's shards has nine MiB

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class NotRegularError(OSError):
    """What has a file's name is a pipe, a device, a socket or a folder."""

    def __init__(self, path: Path, mode: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        super().__init__(errno.EINVAL, f"it is {kind} and no regular file", str(path))


def open_regular(path: Path, *, buffering: int = -1) -> BinaryIO:
    """Open a file for reading bytes, as ``open`` does.

    Raises:
        OSError: it is not there, may not be read, or is no regular file (``NotRegularError``).
    """
    # Without O_NONBLOCK, opening a pipe waits until somebody writes into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise NotRegularError(path, mode)
    return os.fdopen(descriptor, "rb", buffering)


def read_regular(path: Path, *, most: int = MOST_SETTINGS) -> bytes:
    """Return the content of a file of settings.

    Raises:
        OSError: as ``open_regular``, or it has more than ``most`` bytes.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return content


def check_regular(folder: Path, name: str) -> None:
    """Refuse a model's folder in which something is neither a file nor a folder.

    For what is given to a library that opens the files itself. ``name`` is what messages call the
    model.

    Raises:
        ModelError: names the first such thing.
    """
    with os.scandir(folder) as entries:
        found = sorted(entry.path for entry in entries)
    for path in map(Path, found):
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # a link to nothing, which is missed where it is needed
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise unreadable(f"{name}: {path.name}", NotRegularError(path, mode))


def unreadable(place: str, error: OSError) -> ModelError:
    """Return what is told of a file, called ``place``, that cannot be opened or read."""
    remedy = (
        "put the file itself there"
        if isinstance(error, NotRegularError)
        else "let the daemon's account read the model's files"
    )
    return ModelError(f"{place} cannot be read: {error.strerror or error}", remedy=remedy)
