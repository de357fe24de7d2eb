from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from daemon.durable import sync_file


@pytest.mark.parametrize("answer", ["known", "unknown"])
def test_where_there_is_a_full_sync_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    # F_GETFD stands for macOS's command, which Linux has not; 9999 is none anywhere.
    command = fcntl.F_GETFD if answer == "known" else 9999
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", command, raising=False)
    plain: list[int] = []
    monkeypatch.setattr(os, "fsync", plain.append)

    with (tmp_path / "x").open("wb") as file:
        file.write(b"content")
        sync_file(file)
        assert (tmp_path / "x").read_bytes() == b"content"
        assert plain == ([] if answer == "known" else [file.fileno()])
