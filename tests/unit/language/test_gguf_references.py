"""GGUF files of every architecture against transformers' logits (tests/references/make_gguf.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from tests.unit.language.gguf_cases import CASES, PLACE, TOKENS
from workers.language import formats
from workers.language.gguf import open_gguf
from workers.language.load import load_language_model


@pytest.fixture(scope="module")
def expected() -> Any:
    """Logits by the case's name."""
    with np.load(PLACE / "logits.npz") as arrays:
        return dict(arrays)


def difference(logits: mx.array, expected: np.ndarray) -> float:
    """Return the largest difference, in units of the largest logit."""
    found = np.array(logits)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(expected: Any, name: str) -> None:
    model = load_language_model(PLACE / f"{name}.gguf")
    assert difference(model.model(mx.array(TOKENS)), expected[name]) < 2e-6
    files = formats.find_model_files(PLACE / f"{name}.gguf")
    factors = 64 if CASES[name].architecture in ("llama", "phi3") else 0  # are no weights
    assert 0 <= formats.estimate_bytes(files, float32=True) - model.bytes <= factors


@pytest.mark.parametrize("name", ["llama-3.1", "qwen2-yarn", "phi3-long", "gemma3"])
def test_answers_continue_where_the_prompt_ended(expected: Any, name: str) -> None:
    model = load_language_model(PLACE / f"{name}.gguf").model
    tokens, cache = mx.array(TOKENS), make_prompt_cache(model)
    parts = [model(tokens[:, :30], cache=cache)]
    parts += [model(tokens[:, place : place + 1], cache=cache) for place in range(30, 40)]
    assert difference(mx.concatenate(parts, axis=1), expected[name]) < 4e-6


@pytest.mark.parametrize("name", CASES)
def test_mlx_lm_makes_the_same_network_of_the_configuration(
    expected: Any, name: str, tmp_path: Path
) -> None:
    source = open_gguf(PLACE / f"{name}.gguf")
    assert source.unwritable is None
    (tmp_path / "config.json").write_text(json.dumps(source.config))
    weights = {key: tensor.read() for key, tensor in source.tensors.items()}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    model, _ = load_model(tmp_path)
    assert difference(model(mx.array(TOKENS)), expected[name]) < 2e-6


def test_published_factors_become_a_word_of_the_configuration() -> None:
    scaling = open_gguf(PLACE / "llama-3.1.gguf").config["rope_scaling"]
    assert (scaling["rope_type"], scaling["factor"]) == ("llama3", 8.0)
    assert scaling["original_max_position_embeddings"] == 8192


def test_an_opened_file_declares_what_it_will_read() -> None:
    for name in CASES:
        source = open_gguf(PLACE / f"{name}.gguf")
        for tensor in source.tensors.values():
            array = tensor.read()
            assert (array.shape, array.dtype) == (tensor.shape, tensor.dtype)
