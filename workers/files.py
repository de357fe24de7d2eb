"""Writing files that last: synced, complete or absent, and a full disk said as what it is.

The rule this module protects: a name in the attempt's folder stands for a whole file. Content goes
to a temporary name beside it, is synced, and is then renamed. Imports no MLX.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from daemon.durable import sync_file, sync_folder
from workers.failures import disk_errors

_CHUNK = 1 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that appears under ``path``, synced, only if the block succeeds.

    Raises:
        DiskFullError: the disk is full; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with disk_errors(path), temporary.open("wb") as file:
            yield file
            sync_file(file)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: whole and synced, or not at all."""
    with whole_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``: whole and synced, or not at all."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` as sorted, indented JSON; NaN and infinities are errors."""
    write_text(path, json.dumps(data, indent=4, sort_keys=True, allow_nan=False) + "\n")


def copy_file(source: Path, target: Path) -> None:
    """Give ``source`` a second, durable name ``target``: a hard link, else a copy.

    For finished files that nobody will change; a link saves the space of a large adapter.
    """
    _copy(source, target)
    sync_folder(target.parent)


def copy_files(names: Iterable[str], source: Path, target: Path) -> None:
    """Do as ``copy_file`` with files of the folder ``source``, syncing ``target`` once."""
    for name in names:
        _copy(source / name, target / name)
    sync_folder(target)


def _copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        with source.open("rb") as content, whole_file(target) as file:
            shutil.copyfileobj(content, file, _CHUNK)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LineFile:
    """A text file that grows by whole lines and can be synced when it matters."""

    def __init__(self, path: Path, *, start: bytes = b"") -> None:
        self.path = path
        with disk_errors(path):
            self._file = path.open("wb")
            self._file.write(start)
            self._file.flush()

    def append(self, line: str) -> None:
        """Add one line, visible to other readers at once."""
        with disk_errors(self.path):
            self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self._file.flush()

    def sync(self) -> None:
        """Make every line so far durable."""
        with disk_errors(self.path):
            sync_file(self._file)

    def content(self) -> bytes:
        """Return everything written so far."""
        return self.path.read_bytes()

    def close(self) -> None:
        """Close the file; what was appended stays."""
        with disk_errors(self.path):
            self._file.close()
