"""Pictures are written beside the engine's work, given back in order, and whole or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.errors import DiskFullError
from daemon.size import Size
from workers.diffusion import metadata
from workers.diffusion.pictures import picture_name
from workers.diffusion.writer import Picture, PictureWriter, Written

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def batch(first: int, count: int, side: int = 64) -> list[Picture]:
    random = np.random.Generator(np.random.PCG64(first))
    return [
        Picture(
            index=index,
            seed=100 + index,
            pixels=random.integers(0, 256, (side, side, 3), dtype=np.uint8),
            chunks={"studioq": f'{{"index": {index}}}'},
        )
        for index in range(first, first + count)
    ]


@contextmanager
def opened(folder: Path, *, waiting: int = 8, threads: int = 2) -> Iterator[PictureWriter]:
    made = PictureWriter(folder, thumbnails=Size(16, 16), waiting=waiting, threads=threads)
    with closing(made) as writer:
        yield writer


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def check(folder: Path, picture: Picture, written: Written) -> None:
    path = folder / picture_name(picture.index)
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert metadata.read_record(path) == {"index": picture.index}
    assert (written.thumbnail.index, written.thumbnail.seed) == (picture.index, picture.seed)
    assert written.thumbnail.image.size == (16, 16)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), picture.pixels)


def test_pictures_of_many_threads_come_back_in_order(tmp_path: Path) -> None:
    given = [*batch(0, 1, side=512), *batch(1, 9, side=8), *batch(10, 2, side=256)]
    with opened(tmp_path, threads=4) as writer:
        writer.submit(given)
        written = list(writer.drain())
        assert writer.poll() == list(writer.drain()) == []
    assert len(written) == len(given)
    for picture, done in zip(given, written, strict=True):
        check(tmp_path, picture, done)
    assert names(tmp_path) == [picture_name(picture.index) for picture in given]


def test_polling_gives_each_picture_once(tmp_path: Path) -> None:
    with opened(tmp_path, waiting=0) as writer:
        writer.submit(batch(0, 3))
        while not writer.wait_for_room(1):
            pass
        first = writer.poll()
        writer.submit(batch(3, 2))
        rest = list(writer.drain())
    assert [done.thumbnail.index for done in [*first, *rest]] == [0, 1, 2, 3, 4]


def test_a_full_queue_makes_the_next_batch_wait(tmp_path: Path) -> None:
    with opened(tmp_path, waiting=0, threads=1) as writer:
        writer.submit(batch(0, 8, side=256))
        assert not writer.wait_for_room(0)
        writer.submit(batch(8, 1))
        assert {picture_name(index) for index in range(8)} <= set(names(tmp_path))


@needs_full
def test_a_full_disk_surfaces_in_the_engines_thread_and_ends_the_writing(tmp_path: Path) -> None:
    (tmp_path / f".{picture_name(2)}.part").symlink_to(FULL)
    with opened(tmp_path, threads=1) as writer:
        writer.submit(batch(0, 40, side=256))
        with pytest.raises(DiskFullError, match=r"image-0002\.png"):
            list(writer.drain())
    assert [path for path in names(tmp_path) if path.startswith(".")] == []
    assert len(names(tmp_path)) < 40
    assert picture_name(2) not in names(tmp_path)


@needs_full
def test_an_earlier_failure_surfaces_at_the_next_submission(tmp_path: Path) -> None:
    (tmp_path / f".{picture_name(0)}.part").symlink_to(FULL)
    with opened(tmp_path, waiting=0) as writer:
        writer.submit(batch(0, 1))
        with pytest.raises(DiskFullError):
            writer.submit(batch(1, 1))
    assert names(tmp_path) == []


def test_closing_drops_what_has_not_begun_and_leaves_whole_files(tmp_path: Path) -> None:
    with opened(tmp_path, threads=2) as writer:
        writer.submit(batch(0, 100, side=512))
    left = names(tmp_path)
    assert len(left) < 100
    for name in left:
        assert name.startswith("image-")
        with Image.open(tmp_path / name) as image:
            image.load()


def test_closing_twice_or_unused_is_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.close()
    assert names(tmp_path) == []
