"""Fetching is safe for the user's disk, whatever the daemon says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.client.answers import Artifact
from daemon.client.download import choose, fetch, is_final, place
from daemon.errors import FileDiffersError, NotFoundError, StudioqError

FILES = {
    "adapters.safetensors": b"weights",
    "loss.png": b"picture",
    "checkpoints/0000100/adapters.safetensors": b"earlier weights",
    "checkpoints/0000100/state.safetensors": b"state",
}


class Shelf:
    """A source of artifacts that lie in memory; counts what was read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.read: list[str] = []

    def blocks(self, number: int, name: str) -> Iterator[bytes]:
        self.read.append(name)
        content = self.files[name]
        yield content[:3]
        yield content[3:]


def artifact(name: str, content: bytes, kind: str = "adapter") -> Artifact:
    return {
        "name": name,
        "kind": kind,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def listed() -> list[Artifact]:
    return [
        artifact(name, content, "checkpoint" if name.startswith("checkpoints/") else "adapter")
        for name, content in FILES.items()
    ]


def test_results_come_by_default_and_checkpoints_by_name() -> None:
    assert [found["name"] for found in listed() if is_final(found)] == list(FILES)[:2]
    chosen = choose(listed(), [], everything=False)
    assert [found["name"] for found in chosen] == ["adapters.safetensors", "loss.png"]
    assert len(choose(listed(), [], everything=True)) == 4
    folder = choose(listed(), ["checkpoints/0000100/"], everything=False)
    assert [found["name"] for found in folder] == list(FILES)[2:]
    one = choose(listed(), ["loss.png"], everything=False)
    assert [found["name"] for found in one] == ["loss.png"]


def test_a_name_that_means_nothing_says_what_there_is() -> None:
    with pytest.raises(NotFoundError, match=r"'loss'") as caught:
        choose(listed(), ["loss"], everything=False)
    assert "loss.png" in (caught.value.remedy or "")


def test_a_second_fetch_leaves_what_is_there(tmp_path: Path) -> None:
    shelf = Shelf(FILES)
    first = fetch(shelf, 1, listed(), tmp_path)
    assert all(file.written for file in first)
    assert {path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == set(
        FILES.values()
    )
    shelf.read.clear()
    second = fetch(shelf, 1, listed(), tmp_path)
    assert not any(file.written for file in second)
    assert shelf.read == []


def test_a_file_that_differs_stays_and_nothing_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "loss.png").write_bytes(b"mine")
    shelf = Shelf(FILES)
    with pytest.raises(FileDiffersError, match=r"loss\.png differs"):
        fetch(shelf, 1, listed(), tmp_path)
    assert shelf.read == []
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]
    assert (tmp_path / "loss.png").read_bytes() == b"mine"


def test_a_dangling_link_counts_as_a_file_that_differs(tmp_path: Path) -> None:
    (tmp_path / "loss.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileDiffersError):
        fetch(Shelf(FILES), 1, listed(), tmp_path)
    assert not (tmp_path / "nowhere").exists()


def test_content_with_another_hash_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf({"loss.png": b"something else"})
    with pytest.raises(StudioqError, match="but the ledger holds"):
        fetch(shelf, 1, [artifact("loss.png", b"picture")], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "a/../../evil", "a//b", ".", "", "a/", "a\\..\\b", "a\nb", "a\0b"],
)
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StudioqError, match="not safe"):
        place(tmp_path / "job-1", name)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    folder, outside = tmp_path / "job-1", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "checkpoints").symlink_to(outside, target_is_directory=True)
    with pytest.raises(StudioqError, match="leads out of"):
        fetch(Shelf(FILES), 1, listed(), folder)
    assert list(outside.iterdir()) == []
