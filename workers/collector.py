"""Taking in the files that an attempt publishes: checked, synced, hashed.

The rule this module protects: only a plain file inside the attempt's own folder is published, and
what is published is what was hashed. Hashing a large model takes minutes, so it happens in a thread
beside the worker's loop, one file after the other.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from daemon.durable import sync_file
from daemon.errors import JobError
from daemon.ledger.attempts import File
from workers.failures import disk_errors


class Collector:
    """Examines files in the order in which they come."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="collector")

    def collect(self, folder: Path, name: str, kind: str, step: int | None) -> Future[File]:
        """Begin to examine ``name`` in the attempt's ``folder``; the future raises as below."""
        return self._thread.submit(examine, folder, name, kind, step)

    def close(self) -> None:
        """End the thread; what has not begun is dropped."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def examine(folder: Path, name: str, kind: str, step: int | None) -> File:
    """Check, sync and hash a file of the attempt's folder.

    Raises:
        JobError: the name leads elsewhere, or there is no plain file.
        DiskFullError: the disk is full, so that the file is not safe.
    """
    path = _inside(folder, name)
    try:
        with disk_errors(path), path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise _refusal(name, "it is not a plain file")
            sync_file(file)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _refusal(name, error.strerror or str(error)) from error
    return File(name=name, kind=kind, bytes=found.st_size, sha256=digest, step=step)


def _inside(folder: Path, name: str) -> Path:
    """Return the file's path if no part of it leaves the folder, by name or by a link."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise _refusal(name, "its name leads out of the attempt's folder")
    path = folder.joinpath(*parts)
    if path.resolve() != folder.resolve().joinpath(*parts):
        raise _refusal(name, "it is, or lies behind, a link")
    if not stat.S_ISREG(_mode(path, name)):
        raise _refusal(name, "it is not a plain file")
    return path


def _mode(path: Path, name: str) -> int:
    try:
        return path.lstat().st_mode
    except OSError as error:
        raise _refusal(name, error.strerror or str(error)) from error


def _refusal(name: str, reason: str) -> JobError:
    return JobError(f"the job's file {name!r} cannot be published: {reason}")
