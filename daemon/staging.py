"""Folders in which a model is put together before it gets its name.

The rule this module protects: what a killed download has left is removed by the next one, and what
another one is using never is. A lock on the folder itself tells them apart: it ends with its
holder, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".part-"


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """Give a folder of one's own inside ``root``, removed at the end of the block.

    Folders there that nobody uses any more are removed first.
    """
    root.mkdir(parents=True, exist_ok=True)
    sweep(root)
    folder, descriptor = _make(root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _make(root: Path) -> tuple[Path, int]:
    """Make a folder and lock it; once more if another download swept it away before the lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks: nothing is ever swept there
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def sweep(root: Path) -> None:
    """Remove the folders inside ``root`` that nobody uses any more."""
    for left in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
