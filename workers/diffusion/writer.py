"""Pictures on their way to the disk, while the GPU is at the next ones.

The rule this module protects: the threads see NumPy arrays and files, nothing else. MLX is used
by the engine's thread alone; what a thread raises is raised there, at the next call. Imports no
MLX.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from daemon.size import Size
from workers.diffusion.pictures import Pixels, picture_name, write_picture
from workers.diffusion.sheet import Thumbnail, thumbnail


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture in memory: (height, width, 3) pixels, not changed any more by anybody."""

    index: int
    seed: int
    pixels: Pixels
    chunks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A picture on the disk, whole and synced, and what the contact sheet needs of it."""

    sha256: str
    thumbnail: Thumbnail


class PictureWriter:
    """A few threads that encode and write pictures, in any order; they are given back in order.

    PNG encoding leaves Python free (zlib works outside its lock), so the threads do not slow the
    engine's. Memory is bounded: ``submit`` waits until no more than ``waiting`` earlier pictures
    are unwritten. Thumbnails are made at ``thumbnails`` pixels, the size that ``sheet.plan`` says.
    """

    def __init__(
        self, folder: Path, *, thumbnails: Size, waiting: int = 8, threads: int | None = None
    ) -> None:
        self._folder = folder
        self._thumbnails = thumbnails
        self._waiting = waiting
        self._pool = ThreadPoolExecutor(threads or _threads(), thread_name_prefix="pictures")
        self._futures: deque[Future[Written]] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether everything that was submitted has been given back."""
        return not self._futures

    def submit(self, pictures: Sequence[Picture]) -> None:
        """Hand pictures over, waiting for room first.

        Raises:
            DiskFullError: an earlier picture could not be written.
        """
        while not self.wait_for_room(None):
            pass
        self._futures.extend(self._pool.submit(self._write, picture) for picture in pictures)

    def wait_for_room(self, seconds: float | None) -> bool:
        """Wait until ``submit`` would not, at most so long; say whether it now would not.

        Raises:
            DiskFullError: an earlier picture could not be written.
        """
        unwritten = self._unwritten()
        if len(unwritten) > self._waiting:
            wait(unwritten, seconds, FIRST_COMPLETED)
        self._raise_failure()
        return len(self._unwritten()) <= self._waiting

    def poll(self) -> list[Written]:
        """Return what is newly written, in the order of submission; wait for nothing.

        Raises:
            DiskFullError: a picture could not be written.
        """
        self._raise_failure()
        found = []
        while self._futures and self._futures[0].done():
            found.append(self._futures.popleft().result())
        return found

    def drain(self) -> Iterator[Written]:
        """Yield everything that was submitted and not yet given back, in order, as it is written.

        Raises:
            DiskFullError: a picture could not be written.
        """
        while self._futures:
            wait([self._futures[0]])
            self._raise_failure()
            yield self._futures.popleft().result()

    def close(self) -> None:
        """Drop what has not begun, and wait for what has: no file is left half written."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._futures.clear()

    def _unwritten(self) -> list[Future[Written]]:
        return [future for future in self._futures if not future.done()]

    def _raise_failure(self) -> None:
        """Raise what went wrong in a thread, whichever picture it was, and begin no other."""
        for future in self._futures:
            error = future.exception() if future.done() else None
            if error is not None:
                self.close()
                raise error

    def _write(self, picture: Picture) -> Written:
        path = self._folder / picture_name(picture.index)
        content = write_picture(path, picture.pixels, picture.chunks)
        return Written(
            sha256=hashlib.sha256(content).hexdigest(),
            thumbnail=Thumbnail(
                index=picture.index,
                seed=picture.seed,
                image=thumbnail(picture.pixels, self._thumbnails),
            ),
        )


def _threads() -> int:
    """Return half the processors, at most four: the engine needs the others."""
    return max(1, min(4, (os.cpu_count() or 2) // 2))
