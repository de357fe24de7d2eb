"""Adapters that PEFT saved compute what PEFT computes, or are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from daemon.adapter_config import CONFIG
from daemon.errors import ModelError
from tests.unit.language.peft_cases import CASES, PLACE, TOKENS
from workers.language.adapters import WEIGHTS, load_adapter, read_adapter_config
from workers.language.load import LanguageModel

TOLERANCE = 5e-6
NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def uploaded(folder: Path, case: str = "plain") -> Path:
    """Return an adapter's folder as the engine sees it after an upload."""
    folder.mkdir()
    shutil.copy(PLACE / case / "adapter_model.safetensors", folder / WEIGHTS)
    shutil.copy(PLACE / case / CONFIG, folder / CONFIG)
    return folder


def set_option(folder: Path, **options: object) -> Path:
    data = json.loads((folder / CONFIG).read_bytes())
    (folder / CONFIG).write_text(json.dumps(data | options))
    return folder


def change(folder: Path, change: Any) -> Path:
    loaded: Any = mx.load(str(folder / WEIGHTS))
    weights = {name: mx.array(array) for name, array in loaded.items()}
    mx.eval(weights)
    change(weights)
    mx.save_safetensors(str(folder / WEIGHTS), weights)
    return folder


def refusal(folder: Path, model: LanguageModel) -> str:
    with pytest.raises(ModelError) as refused:
        load_adapter(folder, model)
    assert refused.value.remedy
    return refused.value.message


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_of_peft_computes_what_peft_computes(
    case: str, tmp_path: Path, model: LanguageModel
) -> None:
    with np.load(PLACE / "logits.npz") as answers:
        right = answers[case]
    plain = np.array(model.model(mx.array(TOKENS)))
    given = np.array(load_adapter(uploaded(tmp_path / "a", case), model).model(mx.array(TOKENS)))
    assert np.abs(given - right).max() < TOLERANCE * np.abs(right).max()
    assert np.abs(plain - right).max() > 0.01 * np.abs(right).max()


def test_its_settings_are_read_in_mlx_lm_s_terms(tmp_path: Path) -> None:
    config = read_adapter_config(uploaded(tmp_path / "a", "rank-stabilised"))
    assert (config.kind, config.rank, config.scale) == ("lora", 4, 3.0)
    assert config.model == "tiny"
    assert config.keys is not None
    assert "mlp.gate_proj" in config.keys
    assert "self_attn.k_proj" in config.keys


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("peft_type", "LOHA"),
        ("bias", "all"),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa"),
        ("fan_in_fan_out", True),
        ("lora_bias", True),
        ("r", 0),
        ("lora_alpha", "8"),
        ("use_dora", "yes"),
    ],
)
def test_a_setting_that_mlx_lm_s_layers_lack_is_refused(
    option: str, value: object, tmp_path: Path, model: LanguageModel
) -> None:
    message = refusal(set_option(uploaded(tmp_path / "a"), **{option: value}), model)
    assert f"{option} = {value!r}" in message


def test_half_of_a_layer_is_refused(tmp_path: Path, model: LanguageModel) -> None:
    folder = change(uploaded(tmp_path / "a"), lambda weights: weights.pop(NAME))
    assert "lora_b, but no" in refusal(folder, model)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.lm_head.weight",
        "base_model.model.lm_head.lora_A.weight",
    ],
)
def test_tensors_outside_the_blocks_are_named(
    name: str, tmp_path: Path, model: LanguageModel
) -> None:
    folder = change(
        uploaded(tmp_path / "a"), lambda weights: weights.update({name: mx.zeros((4, 64))})
    )
    assert name.removeprefix("base_model.model.").split(".lora_A")[0] in refusal(folder, model)


def test_another_model_s_adapter_is_refused_with_both_shapes(
    tmp_path: Path, model: LanguageModel
) -> None:
    folder = change(
        uploaded(tmp_path / "a"), lambda weights: weights.update({NAME: mx.zeros((4, 48))})
    )
    message = refusal(folder, model)
    assert "48x4" in message
    assert "64x4" in message
