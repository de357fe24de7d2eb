"""What is on the disk is listed where it is, published once, and taken over by the next attempt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from daemon.errors import JobError
from daemon.size import Size
from daemon.specs import DiffuseSpec
from workers.checkpoints import DIGESTS, STATE, is_whole
from workers.diffusion.mflux_models.album import Album
from workers.diffusion.pictures import Pixels
from workers.diffusion.sheet import SHEET
from workers.events import Artifact, Checkpoint, Event, SafePoint

SIZE = Size(24, 16)


def names(*numbers: int) -> list[str]:
    return [f"image-{number:04}.png" for number in numbers]


def drawn(number: int) -> Pixels:
    return np.full((SIZE.height, SIZE.width, 3), 10 * number, dtype=np.uint8)


def album(folder: Path, pictures: int = 5) -> Album:
    folder.mkdir()
    return Album(folder, DiffuseSpec(prompt="x", model="m", seed=3, n_images=pictures), SIZE)


def write(pictures: Album, *numbers: int) -> list[Event]:
    return [event for number in numbers for event in pictures.write(drawn(number), {})]


def test_a_picture_that_is_written_is_published_by_a_checkpoint(tmp_path: Path) -> None:
    pictures = album(tmp_path / "one")
    assert not pictures.is_behind
    events = write(pictures, 0, 1)
    published = [event.files for event in events if isinstance(event, Checkpoint)]
    assert published == [tuple(names(0)), tuple(names(1))]
    assert not pictures.is_behind


def test_a_checkpoint_lists_pictures_and_has_none_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    for event in write(album(folder), 0, 1, 2):
        assert isinstance(event, Checkpoint)
        checkpoint = folder / event.folder
        assert [path.name for path in checkpoint.iterdir()] == [STATE]
        digests = json.loads((checkpoint / STATE).read_bytes())[DIGESTS]
        assert sorted(digests) == [f"../{name}" for name in names(*range(event.step))]
        assert is_whole(checkpoint)
    assert {path.stat().st_nlink for path in folder.glob("*.png")} == {1}


def test_the_next_attempt_takes_over_publishes_all_and_is_not_behind(tmp_path: Path) -> None:
    write(album(tmp_path / "one"), 0, 1)
    pictures = album(tmp_path / "two", 3)
    assert list(pictures.resume(tmp_path / "one/done-00002")) == [SafePoint()] * 2
    assert (pictures.count, pictures.made, pictures.is_behind) == (2, 0, False)
    for name in names(0, 1):
        assert (tmp_path / "two" / name).samefile(tmp_path / "one" / name)
    assert write(pictures, 2) == []
    assert (pictures.count, pictures.made, pictures.is_behind) == (3, 1, True)
    published = [event.path for event in pictures.publish() if isinstance(event, Artifact)]
    assert published == [*names(0, 1, 2), SHEET]


def test_nothing_new_is_no_checkpoint(tmp_path: Path) -> None:
    pictures = album(tmp_path / "one")
    write(pictures, 0)
    assert list(pictures.checkpoint()) == []


def test_without_a_checkpoint_there_is_nothing(tmp_path: Path) -> None:
    pictures = album(tmp_path / "one")
    assert list(pictures.resume(None)) == list(pictures.publish()) == []
    assert pictures.count == 0


def test_a_checkpoint_of_other_names_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "done-00001"
    folder.mkdir()
    (folder / STATE).write_text(json.dumps({DIGESTS: {"../../etc/passwd": "0"}}))
    with pytest.raises(JobError, match=r"has \.\./\.\./etc/passwd in place of \.\./image-0000"):
        list(album(tmp_path / "one").resume(folder))
