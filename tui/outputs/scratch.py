"""The folder for files that are fetched only to be looked at.

The rule this module protects: it is the user's alone, it never holds more than its limit, and it is
gone when the program ends; what a killed one has left the next one removes. What the user is to
keep is saved elsewhere, by name.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli.units import size
from daemon.client.download import Source, download, place
from daemon.errors import StudioqError, TooLargeError

if TYPE_CHECKING:
    from daemon.client.answers import Artifact

LIMIT = 200_000_000

_PREFIX = "studioq-tui-"


@dataclass(frozen=True, kw_only=True)
class _Kept:
    path: Path
    bytes: int
    pinned: bool


class Scratch:
    """Fetched files by their hash; the longest unused go first. Several threads may use it."""

    def __init__(self, *, limit: int = LIMIT, parent: Path | None = None) -> None:
        self.limit = limit
        self._parent = parent or Path(tempfile.gettempdir())
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._closed = False

    def fetch(self, source: Source, number: int, artifact: Artifact, *, pin: bool = False) -> Path:
        """Return where the file lies, fetched if it does not yet; ``pin`` keeps it to the end.

        Raises:
            TooLargeError: it is larger than the folder may become.
            StudioqError: its name is not safe, or what came has another hash.
        """
        kept = self._find(artifact["sha256"], pin=pin)
        if kept is not None:
            return kept
        self._check(artifact)
        folder = Path(tempfile.mkdtemp(dir=self.folder()))
        name = artifact["name"].rpartition("/")[2]
        try:
            path = download(source, number, artifact, place(folder, name)).path
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return self._keep(artifact, path, pin=pin)

    def folder(self) -> Path:
        """Return the folder, made with the rights 0700 at the first call.

        Raises:
            StudioqError: it has been removed, because the program ends.
        """
        with self._lock:
            if self._closed:
                raise StudioqError("nothing is fetched any more: studioq tui is ending")
            if self._folder is None:
                sweep(self._parent)
                prefix = f"{_PREFIX}{os.getpid()}-"
                self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=self._parent))
                atexit.register(self._remove)
            return self._folder

    @property
    def bytes(self) -> int:
        """The size of all that is kept."""
        return sum(kept.bytes for kept in self._kept.values())

    def close(self) -> None:
        """Remove the folder; nothing is fetched any more."""
        with self._lock:
            self._closed = True
            self._kept.clear()
        self._remove()

    def _remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _find(self, sha256: str, *, pin: bool) -> Path | None:
        with self._lock:
            kept = self._kept.get(sha256)
            if kept is None or not kept.path.is_file():
                return None
            pinned = kept.pinned or pin
            self._kept[sha256] = _Kept(path=kept.path, bytes=kept.bytes, pinned=pinned)
            self._kept.move_to_end(sha256)
            return kept.path

    def _check(self, artifact: Artifact) -> None:
        with self._lock:
            pinned = sum(kept.bytes for kept in self._kept.values() if kept.pinned)
        if artifact["bytes"] + pinned > self.limit:
            raise TooLargeError(
                f"{artifact['name']} has {size(artifact['bytes'])}; at most {size(self.limit)} are "
                "fetched to be looked at" + (", other open files included" if pinned else ""),
                remedy="s saves it to a folder of yours",
            )

    def _keep(self, artifact: Artifact, path: Path, *, pin: bool) -> Path:
        with self._lock:
            there = self._kept.get(artifact["sha256"])
            if there is not None and there.path.is_file():  # another thread was quicker
                shutil.rmtree(path.parent, ignore_errors=True)
                return there.path
            self._kept[artifact["sha256"]] = _Kept(path=path, bytes=artifact["bytes"], pinned=pin)
            self._make_room(artifact["sha256"])
        return path

    def _make_room(self, newest: str) -> None:
        old = [key for key, kept in self._kept.items() if not kept.pinned and key != newest]
        while old and self.bytes > self.limit:
            shutil.rmtree(self._kept.pop(old.pop(0)).path.parent, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove this user's folders of processes that have ended without doing it."""
    for folder in parent.glob(f"{_PREFIX}*"):
        found = re.fullmatch(rf"{_PREFIX}([0-9]{{1,9}})-\w+", folder.name)
        if found and not _lives(int(found[1])) and _is_mine(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _is_mine(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.getuid()
    except OSError:
        return False
