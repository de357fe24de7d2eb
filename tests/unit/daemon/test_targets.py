"""Where a converted model is written, and that nobody finds it before it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from daemon.models import ModelRoots
from daemon.targets import staging_folder, staging_folders, target_folder, user_folder


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("ann", "ann"),
        ("ann.b-c_2", "ann.b-c_2"),
        ("uid-7", "uid-7"),
        ("_daemon", "uid-501"),
        ("..", "uid-501"),
        ("a..b", "uid-501"),
        ("a/b", "uid-501"),
        ("OFFICE\\ann", "uid-501"),
        ("änn", "uid-501"),
        ("ann\n", "uid-501"),
        ("", "uid-501"),
        ("a" * 101, "uid-501"),
    ],
)
def test_a_folder_is_called_as_its_user_where_a_model_can_be(name: str, folder: str) -> None:
    assert user_folder(name, 501) == folder


def test_a_model_is_found_when_it_has_its_name_and_not_before(
    tmp_path: Path, tiny_model: Path
) -> None:
    roots = ModelRoots([tmp_path])
    target = target_folder(tmp_path, user="ann", uid=501, to="new")
    staging = staging_folder(target, 12)
    shutil.copytree(tiny_model, staging)

    assert roots.list() == []
    assert roots.find(f"ann/{staging.name}") is None
    assert [(found.path, found.job) for found in staging_folders(tmp_path)] == [(staging, 12)]

    staging.rename(target)
    assert [entry.name for entry in roots.list()] == ["ann/new"]
    assert roots.find("ann/new") == target
    assert staging_folders(tmp_path) == []


def test_where_there_are_no_models_there_is_nothing_to_find(tmp_path: Path) -> None:
    assert staging_folders(tmp_path / "none") == []
