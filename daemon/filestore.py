"""Uploaded files, stored once each under their SHA-256.

The rule this module protects: what has a hash's name has that content, whole and on the disk. An
upload is written beside its place, hashed on the way, synced, and renamed only when the hash is the
promised one; one that is broken off leaves nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from daemon.durable import sync_file, sync_folder
from daemon.errors import DiskFullError, SpecRefusedError, UsageError

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PART = ".part"


def check_sha256(text: str) -> str:
    """Return ``text`` if it is a SHA-256 in lower-case hexadecimal.

    Raises:
        UsageError: it is not.
    """
    if not _SHA256.fullmatch(text):
        raise UsageError(f"{text[:80]!r} is not a SHA-256 in lower-case hexadecimal")
    return text


class HashMismatchError(SpecRefusedError):
    """The content that came has not the hash that was promised."""

    code = "hash_mismatch"


@dataclass(frozen=True)
class FileStore:
    """The folder ``blobs`` of a home."""

    folder: Path

    def path(self, sha256: str) -> Path:
        """Return where the content with this hash lives, if it does."""
        return self.folder / sha256[:2] / sha256

    def begin(self, *, spare: int = 0) -> Part:
        """Begin an upload that leaves ``spare`` bytes of the disk free, whatever its size."""
        return Part(self, self.folder / f"{secrets.token_hex(8)}{_PART}", spare)

    def adopt(self, part: Part, sha256: str) -> None:
        """Give a finished upload its name; content that is there already is the same."""
        place = self.path(sha256)
        place.parent.mkdir(exist_ok=True)
        part.path.rename(place)
        for folder in (place.parent, self.folder):
            sync_folder(folder)

    def remove(self, sha256: str) -> None:
        """Delete the content with this hash, if it is there."""
        self.path(sha256).unlink(missing_ok=True)

    def check_space(self, size: int, *, spare: int, written: int = 0) -> None:
        """Refuse what would leave less than ``spare`` bytes free once it is written to its end.

        Raises:
            DiskFullError: names the size and what is free.
        """
        free = shutil.disk_usage(self.folder).free
        if size - written + spare > free:
            raise DiskFullError(
                f"the upload has at least {size / 1e6:,.0f} MB, and the daemon's disk has "
                f"{free / 1e6:,.0f} MB free, of which {spare / 1e6:,.0f} MB stay free",
                remedy="free space on it, or ask an admin of this daemon",
            )

    def remove_parts(self) -> None:
        """Delete what uploads of an earlier daemon left when it died."""
        for left in self.folder.glob(f"*{_PART}"):
            left.unlink(missing_ok=True)


class Part:
    """An upload on its way. As a context it deletes its file unless that was renamed."""

    def __init__(self, store: FileStore, path: Path, spare: int) -> None:
        self.path = path
        self._store = store
        self._spare = spare
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._file = path.open("xb", buffering=0)

    def __enter__(self) -> Part:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def write(self, piece: bytes | bytearray) -> None:
        """Append a piece.

        Raises:
            DiskFullError: it would take the space that is to stay free.
        """
        size = self.bytes + len(piece)
        self._store.check_space(size, spare=self._spare, written=self.bytes)
        self._digest.update(piece)
        left = memoryview(piece)
        while left:
            left = left[self._file.write(left) :]
        self.bytes = size

    def finish(self, sha256: str) -> None:
        """Sync the file, once its content is known to be the promised one.

        Raises:
            HashMismatchError: it is not.
        """
        found = self._digest.hexdigest()
        if found != sha256:
            raise HashMismatchError(
                f"the uploaded content has SHA-256 {found}, not the announced {sha256}",
                remedy="the file changed while it was read: submit again",
            )
        sync_file(self._file)
        self._file.close()
