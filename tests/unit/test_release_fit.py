"""Releases that are half there, or have another model's params.json, are told before a job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import ModelError
from daemon.language_files import LanguageFiles
from tests.unit.language.original_cases import CASES, release_weights
from tests.unit.language.release_files import split, write_release


def release(folder: Path, case: str, shards: int, tokenizer: Path) -> Path:
    write_release(folder, case, split(release_weights(CASES[case]), shards))
    shutil.copy(tokenizer, folder / "tokenizer.model")
    return folder


def check(folder: Path) -> None:
    list(LanguageFiles(name="m", path=folder, format="original").facts())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shards", [1, 2])
def test_whole_releases_pass(
    case: str, shards: int, tmp_path: Path, tokenizer_files: dict[str, Path]
) -> None:
    check(release(tmp_path / "m", case, shards, tokenizer_files["v1"]))


def test_a_missing_last_file_is_told(tmp_path: Path, tokenizer_files: dict[str, Path]) -> None:
    folder = release(tmp_path / "m", "llama", 2, tokenizer_files["v1"])
    (folder / "consolidated.01.pth").unlink()
    with pytest.raises(ModelError, match="m is incomplete, or has another model's") as caught:
        check(folder)
    assert "16 rows in 1 of its files together, and has to have 32" in caught.value.message


def test_another_model_s_params_are_told(tmp_path: Path, tokenizer_files: dict[str, Path]) -> None:
    folder = release(tmp_path / "m", "llama", 1, tokenizer_files["v1"])
    params: dict[str, Any] = json.loads((folder / "params.json").read_bytes())
    (folder / "params.json").write_text(json.dumps(params | {"dim": 64}))
    with pytest.raises(ModelError, match=r"norm\.weight has the shape \(32,\), and dim is 64"):
        check(folder)


def test_an_empty_tokenizer_is_told(tmp_path: Path, tokenizer_files: dict[str, Path]) -> None:
    folder = release(tmp_path / "m", "mistral", 1, tokenizer_files["v1"])
    (folder / "tokenizer.model").write_bytes(b"")
    with pytest.raises(ModelError, match=r"m has an empty tokenizer\.model"):
        check(folder)
