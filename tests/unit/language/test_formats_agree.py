"""One model in every format that can hold it computes what transformers computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx_lm.utils
import numpy as np
import pytest
from mlx_lm.utils import load_model

from daemon.model_facts import facts_of
from daemon.models import entry_at
from tests.conftest import write_tiny_tokenizer
from tests.unit.language.original_cases import CASES, TOKENS, expected_logits, release_weights
from tests.unit.language.release_files import (
    split,
    write_known_folder,
    write_npz,
    write_release,
    write_safetensors_release,
)
from workers.language import formats
from workers.language.formats import Format
from workers.language.load import load_language_model

TOLERANCE = 2e-6

Write = Callable[[Path, str], Path]


def two_files(folder: Path, name: str, embeddings_axis: int = 1) -> Path:
    shards = split(release_weights(CASES[name]), 2, embeddings_axis)
    return write_release(folder, name, shards)


def mlx_folder(folder: Path, name: str) -> Path:
    """Write what ``mlx_lm.convert`` would: its network's own parameters."""
    model, config = load_model(write_known_folder(folder.with_name("hf"), name))
    folder.mkdir()
    mlx_lm.utils.save_model(folder, model)
    mlx_lm.utils.save_config(config, folder / "config.json")
    return folder


FORMATS: dict[str, tuple[Format, Write]] = {
    "hf": (Format.FOLDER, write_known_folder),
    "mlx": (Format.FOLDER, mlx_folder),
    "pth": (Format.ORIGINAL, write_release),
    "two pth, embeddings by columns": (Format.ORIGINAL, two_files),
    "two pth, embeddings by rows": (Format.ORIGINAL, partial(two_files, embeddings_axis=0)),
    "safetensors": (Format.ORIGINAL, partial(write_safetensors_release, files=1)),
    "two safetensors": (Format.ORIGINAL, partial(write_safetensors_release, files=2)),
    "npz": (Format.NPZ, write_npz),
    "npz with params.json": (Format.NPZ, partial(write_npz, settings="params.json")),
    "three npz": (Format.NPZ, partial(write_npz, files=3)),
    "packed npz": (Format.NPZ, partial(write_npz, compressed=True)),
    "npz, hf names": (Format.NPZ, partial(write_npz, known_names=True)),
    "npz, hf names with params.json": (
        Format.NPZ,
        partial(write_npz, known_names=True, settings="params.json"),
    ),
}


DAEMONS_NAMES = {Format.FOLDER: "hf", Format.ORIGINAL: "original", Format.NPZ: "npz"}


@pytest.mark.parametrize("kind", FORMATS)
def test_the_daemon_sees_the_same_in_a_folder(tmp_path: Path, kind: str) -> None:
    expected_format, write = FORMATS[kind]
    folder = write(tmp_path / "model", "mistral")
    write_tiny_tokenizer(folder)
    entry = entry_at("m", folder)
    assert entry.format == DAEMONS_NAMES[expected_format]
    facts = facts_of(entry)
    assert facts.problem is None
    assert facts.count is not None
    weights = release_weights(CASES["mistral"]).values()
    assert facts.count.parameters == sum(array.size for array in weights)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", FORMATS)
def test_logits_are_those_of_transformers(tmp_path: Path, kind: str, name: str) -> None:
    expected_format, write = FORMATS[kind]
    folder = write(tmp_path / "model", name)
    write_tiny_tokenizer(folder)
    files = formats.find_model_files(folder)
    assert files.format is expected_format
    model = load_language_model(folder)
    assert formats.estimate_bytes(files, float32=True) == pytest.approx(model.bytes, rel=0.01)
    found, expected = np.array(model.model(mx.array(TOKENS))), expected_logits(name)
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_four_files_are_joined_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    shards = split(release_weights(CASES["llama"]), 4)
    folder = write_release(tmp_path / "model", "llama", shards)
    write_tiny_tokenizer(folder)
    found = np.array(load_language_model(folder).model(mx.array(TOKENS)))
    expected = expected_logits("llama")
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_hugging_faces_files_come_before_a_release_beside_them(tmp_path: Path) -> None:
    """They have what a release lacks: the chat template, and the tokens that end an answer."""
    folder = write_known_folder(tmp_path / "model", "mistral")
    write_release(folder, "mistral")
    assert formats.find_model_files(folder).format is Format.FOLDER
    (folder / "model.safetensors").unlink()
    assert formats.find_model_files(folder).format is Format.ORIGINAL
