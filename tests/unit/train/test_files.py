"""Files are whole or absent, and a full disk is called that."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from daemon.errors import DiskFullError
from workers import files
from workers.failures import disk_errors

FULL = Path("/dev/full")


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), files.whole_file(path) as file:
        file.write(b"half")
        _ = 1 / 0
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError, match=r"x\.bin"),
        disk_errors(tmp_path / "x.bin"),
        FULL.open("wb", buffering=0) as full,
    ):
        full.write(b"x")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_growing_file_says_it_too(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to(FULL)
    lines = files.LineFile(tmp_path / "metrics.jsonl")
    with pytest.raises(DiskFullError):
        lines.append("x")
    with pytest.raises(DiskFullError):
        lines.close()


def test_lines_are_there_at_once_and_after_a_start(tmp_path: Path) -> None:
    lines = files.LineFile(tmp_path / "m.jsonl", start=b"one\n")
    lines.append("two")
    assert (tmp_path / "m.jsonl").read_bytes() == lines.content() == b"one\ntwo\n"
    lines.close()


def test_a_copy_has_the_same_content_and_outlives_the_original(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    files.write_bytes(source, b"content")
    files.copy_file(source, target)
    source.unlink()
    assert target.read_bytes() == b"content"
    assert files.sha256_of(target) == hashlib.sha256(b"content").hexdigest()


def test_json_is_sorted_and_has_no_nan(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": 1, "a": None})
    assert (tmp_path / "a.json").read_text() == '{\n    "a": null,\n    "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
