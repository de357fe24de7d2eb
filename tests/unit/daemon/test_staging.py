from __future__ import annotations

from pathlib import Path

from daemon.staging import staging_folder


def test_what_is_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    left = tmp_path / ".part-left"
    (left / "model").mkdir(parents=True)
    (tmp_path / "org").mkdir()

    with staging_folder(tmp_path) as first, staging_folder(tmp_path) as second:
        assert first.is_dir()
        assert second.is_dir()
        assert first != second
        assert not left.exists()

    assert [path.name for path in tmp_path.iterdir()] == ["org"]
