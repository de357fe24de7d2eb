from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from daemon.adapter_config import CONFIG
from daemon.errors import ModelError, NonFiniteError
from workers.language.adapters import WEIGHTS, load_adapter
from workers.language.load import LanguageModel
from workers.models import own_tree

TOKENS = mx.array([[1, 2, 3, 4]])
LORA = {"rank": 4, "scale": 2.0, "dropout": 0.0}


def write_adapter(
    folder: Path,
    model: LanguageModel,
    *,
    kind: str = "lora",
    layers: int = 2,
    parameters: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a random adapter for ``model`` as mlx-lm's trainer would."""
    settings = LORA if parameters is None else parameters
    tree = own_tree(model.model)
    tree.freeze()
    if kind == "full":
        for layer in tree.layers[-layers:]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(tree, layers, settings, use_dora=kind == "dora")
    mx.random.seed(1)
    weights = {
        name: mx.random.normal(array.shape) * 0.1
        for name, array in tree_flatten(tree.trainable_parameters())
    }
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / WEIGHTS), weights)
    written = {"fine_tune_type": kind, "num_layers": layers, "lora_parameters": settings}
    (folder / CONFIG).write_text(json.dumps(written | (config or {})))
    return folder


@pytest.mark.parametrize(
    ("kind", "layers"),
    [("lora", 1), ("lora", -1), ("dora", 1), ("dora", -1), ("full", 1), ("full", 2)],
)
def test_an_adapter_is_applied_as_mlx_lm_does(
    tmp_path: Path, tiny_model: Path, model: LanguageModel, kind: str, layers: int
) -> None:
    folder = write_adapter(tmp_path / "a", model, kind=kind, layers=layers)
    plain = model.model(TOKENS)
    adapted = load_adapter(folder, model)
    reference, _ = mlx_lm.load(str(tiny_model), adapter_path=str(folder))[:2]
    assert mx.array_equal(adapted.model(TOKENS), reference(TOKENS))
    assert not mx.array_equal(adapted.model(TOKENS), plain)
    assert mx.array_equal(model.model(TOKENS), plain)


def test_chosen_keys_only(tmp_path: Path, tiny_model: Path, model: LanguageModel) -> None:
    keys = {**LORA, "keys": ["self_attn.q_proj", "self_attn.v_proj"]}
    folder = write_adapter(tmp_path / "a", model, parameters=keys)
    adapted = load_adapter(folder, model)
    reference, _ = mlx_lm.load(str(tiny_model), adapter_path=str(folder))[:2]
    assert mx.array_equal(adapted.model(TOKENS), reference(TOKENS))


def test_applying_an_adapter_leaves_the_random_state_alone(
    tmp_path: Path, model: LanguageModel
) -> None:
    folder = write_adapter(tmp_path / "a", model)
    mx.random.seed(3)
    expected = mx.random.uniform().item()
    mx.random.seed(3)
    load_adapter(folder, model)
    assert mx.random.uniform().item() == expected


def refusal(folder: Path, model: LanguageModel) -> str:
    with pytest.raises(ModelError) as refused:
        load_adapter(folder, model)
    assert refused.value.remedy
    return refused.value.message


def rewrite(folder: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    loaded: Any = mx.load(str(folder / WEIGHTS))
    weights = {name: mx.array(array) for name, array in loaded.items()}
    mx.eval(weights)
    change(weights)
    mx.save_safetensors(str(folder / WEIGHTS), weights)


NAME = "model.layers.0.self_attn.q_proj.lora_a"


def test_another_shape_is_named_with_both(tmp_path: Path, model: LanguageModel) -> None:
    folder = write_adapter(tmp_path / "a", model)
    rewrite(folder, lambda weights: weights.update({NAME: mx.zeros((32, 4))}))
    message = refusal(folder, model)
    assert NAME in message
    assert "32x4" in message
    assert "64x4" in message


def test_another_rank_is_a_mismatch(tmp_path: Path, model: LanguageModel) -> None:
    other = {"lora_parameters": LORA | {"rank": 8}}
    folder = write_adapter(tmp_path / "a", model, config=other)
    assert "x4, the model needs 128x8" in refusal(folder, model)


def test_missing_and_surplus_tensors_are_named(tmp_path: Path, model: LanguageModel) -> None:
    folder = write_adapter(tmp_path / "a", model)
    rewrite(folder, lambda weights: weights.update({"other.lora_a": weights.pop(NAME)}))
    message = refusal(folder, model)
    assert f"lacks {NAME}" in message
    assert "other.lora_a without a place" in message


def test_base_weights_cannot_be_smuggled_in(tmp_path: Path, model: LanguageModel) -> None:
    folder = write_adapter(tmp_path / "a", model)
    rewrite(folder, lambda weights: weights.update({"model.norm.weight": mx.zeros(64)}))
    assert "model.norm.weight without a place" in refusal(folder, model)


def test_more_layers_than_the_model_has(tmp_path: Path, model: LanguageModel) -> None:
    folder = write_adapter(tmp_path / "a", model)
    moved = {"model.layers.9.self_attn.q_proj.lora_a": mx.zeros((64, 4))}
    rewrite(folder, lambda weights: weights.update(moved))
    assert "model.layers.9" in refusal(folder, model)


def test_an_empty_adapter(tmp_path: Path, model: LanguageModel) -> None:
    folder = write_adapter(tmp_path / "a", model, kind="full")
    rewrite(folder, lambda weights: weights.clear())
    assert "no tensors" in refusal(folder, model)


def test_infinite_numbers(tmp_path: Path, model: LanguageModel) -> None:
    folder = write_adapter(tmp_path / "a", model)
    rewrite(folder, lambda weights: weights.update({NAME: mx.full((64, 4), float("nan"))}))
    with pytest.raises(NonFiniteError, match="lora_a"):
        load_adapter(folder, model)


def test_whole_numbers_are_not_weights(tmp_path: Path, model: LanguageModel) -> None:
    folder = write_adapter(tmp_path / "a", model)
    rewrite(folder, lambda weights: weights.update({NAME: mx.zeros((64, 4), dtype=mx.int32)}))
    assert "type I32" in refusal(folder, model)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"fine_tune_type": "qlora"}, "fine_tune_type = 'qlora'"),
        ({"num_layers": None}, "num_layers = None"),
        ({"num_layers": 10**9}, "num_layers = 1000000000"),
        ({"num_layers": True}, "num_layers = True"),
        ({"lora_parameters": []}, "rank = None"),
        ({"lora_parameters": 5}, "lora_parameters = 5"),
        ({"lora_parameters": LORA | {"rank": 10**6}}, "rank = 1000000"),
        ({"lora_parameters": LORA | {"rank": 0}}, "rank = 0"),
        ({"lora_parameters": LORA | {"rank": 4.0}}, "rank = 4.0"),
        ({"lora_parameters": {"rank": 4, "alpha": 16}}, "scale = None"),
        ({"lora_parameters": LORA | {"scale": 1e9}}, "scale = 1000000000.0"),
        ({"lora_parameters": LORA | {"scale": float("nan")}}, "scale = nan"),
        ({"lora_parameters": LORA | {"keys": "q_proj"}}, "keys = 'q_proj'"),
        ({"lora_parameters": LORA | {"keys": [1]}}, "keys = [1]"),
        ({"lora_parameters": LORA | {"keys": []}}, "keys = []"),
    ],
)
def test_a_setting_out_of_bounds_is_refused(
    tmp_path: Path, model: LanguageModel, config: dict[str, Any], words: str
) -> None:
    assert words in refusal(write_adapter(tmp_path / "a", model, config=config), model)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(tmp_path: Path, model: LanguageModel, name: str) -> None:
    folder = write_adapter(tmp_path / "a", model)
    (folder / name).unlink()
    assert name in refusal(folder, model)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * 2**21])
def test_a_config_that_is_no_object(tmp_path: Path, model: LanguageModel, content: bytes) -> None:
    folder = write_adapter(tmp_path / "a", model)
    (folder / CONFIG).write_bytes(content)
    assert CONFIG in refusal(folder, model)


def test_truncated_weights(tmp_path: Path, model: LanguageModel) -> None:
    folder = write_adapter(tmp_path / "a", model)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])
    assert "incomplete" in refusal(folder, model)
