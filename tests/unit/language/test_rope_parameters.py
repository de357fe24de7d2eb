"""Configurations as transformers 5 writes them mean what those of before mean."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from daemon.errors import ModelError
from tests.unit.language.original_cases import CASES, expected_logits, known_config, known_weights
from tests.unit.language.original_cases import TOKENS as ASKED
from workers.language.load import load_language_model
from workers.language.rope_parameters import earlier_keys

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({}, {}),
        ({"rope_parameters": None}, {}),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, {"rope_theta": 5e5}),
        ({"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 1e4}, {}),
        (
            {"rope_parameters": {"rope_theta": 5e5, **LLAMA3}},
            {"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "type": "llama3"}},
        ),
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.4}},
            {"rope_theta": 1e4, "partial_rotary_factor": 0.4},
        ),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                }
            },
            {
                "rope_theta": 1e6,
                "rope_local_base_freq": 1e4,
                "rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 8.0},
            },
        ),
        (
            {"text_config": {"a": 1, "rope_parameters": {"rope_theta": 5e5}}},
            {
                "text_config": {
                    "a": 1,
                    "rope_parameters": {"rope_theta": 5e5},
                    "rope_theta": 5e5,
                }
            },
        ),
    ],
)
def test_the_keys_of_before(config: dict[str, Any], keys: dict[str, Any]) -> None:
    assert earlier_keys(config) == keys


def write_folder(folder: Path, case: str, tokenizer: Path) -> Path:
    """Write a case as transformers 5 saves it, with a tokenizer of bytes."""
    folder.mkdir()
    config = known_config(CASES[case])
    theta = config.pop("rope_theta")
    config["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}
    (folder / "config.json").write_text(json.dumps(config))
    arrays = {name: mx.array(array) for name, array in known_weights(CASES[case]).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    return folder


def test_another_wavelength_is_taken(tiny_model: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama-grouped", tiny_model)
    assert CASES["llama-grouped"].params["rope_theta"] == 500_000
    model = load_language_model(folder)
    logits = model.model(mx.array(ASKED))
    expected = mx.array(expected_logits("llama-grouped"))
    difference = mx.abs(logits - expected).max() / mx.abs(expected).max()
    assert float(difference) < 2e-6
    assert model.config["rope_theta"] == 500_000


def test_a_tokenizer_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "llama", tiny_model)
    tokens = json.loads((folder / "tokenizer.json").read_bytes())
    tokens["model"]["vocab"] |= {f"word{number}": 258 + number for number in range(300)}
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(ModelError, match="has 558 tokens, and the model's embedding 48 rows"):
        load_language_model(folder)
