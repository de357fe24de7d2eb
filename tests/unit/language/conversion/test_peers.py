"""What is written is, bit for bit, what mlx-lm's own programs write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model, save

from tests.conftest import tiny_config, write_random_llama, write_tiny_tokenizer
from tests.unit.language.conversion.conftest import Studio, as_stored, differing, logits, weights
from workers.language.conversion import shards

LORA = {"rank": 4, "scale": 7.0, "dropout": 0.0}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as stored": ({}, {}),
    "another type": ({"dtype": "fp16"}, {"dtype": "float16"}),
    "4 bits": ({"quantize": "4"}, {"quantize": True, "q_bits": 4, "q_group_size": 64}),
    "8 bits, small groups": (
        {"quantize": "8", "group_size": 32},
        {"quantize": True, "q_bits": 8, "q_group_size": 32},
    ),
    "type and bits": (
        {"dtype": "bf16", "quantize": "4"},
        {"dtype": "bfloat16", "quantize": True, "q_bits": 4, "q_group_size": 64},
    ),
    "mixed": (
        {"quantize": "mixed_3_6", "group_size": 32},
        {"quantize": True, "quant_predicate": "mixed_3_6", "q_bits": 3, "q_group_size": 32},
    ),
    "mxfp4": ({"quantize": "mxfp4"}, {"quantize": True, "q_mode": "mxfp4"}),
    "nvfp4": ({"quantize": "nvfp4"}, {"quantize": True, "q_mode": "nvfp4"}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stored", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_conversions_are_those_of_mlx_lm(
    case: str,
    stored: mx.Dtype,
    studio: Studio,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "_SLICE_BYTES", 1000)  # a few rows at a time
    ours, theirs = CASES[case]
    source = as_stored(tiny_model, stored, tmp_path / "source")
    mlx_lm.convert(str(source), str(tmp_path / "peer"), **theirs)
    studio.convert(source, **ours)
    assert not differing(weights(studio.target), weights(tmp_path / "peer"))
    for key in ("quantization", "quantization_config"):
        assert config(studio.target).get(key) == config(tmp_path / "peer").get(key)


def config(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return read


def test_dequantizing_is_that_of_mlx_lm(studio: Studio, tiny_model: Path, tmp_path: Path) -> None:
    source = quantized(tiny_model, tmp_path)
    mlx_lm.convert(str(source), str(tmp_path / "peer"), dequantize=True)
    studio.convert(source, dequantize=True)
    assert not differing(weights(studio.target), weights(tmp_path / "peer"))
    assert "quantization" not in config(studio.target)


def quantized(model: Path, folder: Path, mode: str = "affine") -> Path:
    """Return a 4-bit copy of a model, made by mlx-lm."""
    path = folder / "quantized"
    size = 16 if mode == "nvfp4" else 32
    mlx_lm.convert(str(model), str(path), quantize=True, q_bits=4, q_group_size=size, q_mode=mode)
    return path


def adapter(model: Path, folder: Path, *, kind: str) -> Path:
    """Write an adapter with random numbers for both layers of a model; return its folder."""
    network, _ = load_model(model)
    parameters: dict[str, Any] = dict(LORA)
    if kind == "full":
        trained = {
            name: array + 0.1
            for name, array in tree_flatten(network.parameters())
            if "layers.1.mlp" in name
        }
    else:
        linear_to_lora_layers(network, 2, parameters, use_dora=kind == "dora")
        names = [name for name, _ in tree_flatten(network.parameters())]
        trained = {
            name: mx.random.normal(array.shape, key=mx.random.key(place)) * 0.05
            + (array if name.endswith(".m") else 0)
            for place, (name, array) in enumerate(tree_flatten(network.parameters()))
            if names[place].rpartition(".")[2] in ("lora_a", "lora_b", "m")
        }
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), trained)
    described = {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder


def fused_by_mlx_lm(model: Path, adapted: Path, folder: Path, *, dequantize: bool) -> Path:
    """Do what ``mlx_lm.fuse`` does."""
    network, tokenizer, described = mlx_lm.load(
        str(model), adapter_path=str(adapted), return_config=True
    )
    layers = [
        (path, layer.fuse(dequantize=dequantize))
        for path, layer in network.named_modules()
        if hasattr(layer, "fuse")
    ]
    network.update_modules(tree_unflatten(layers))
    save(folder, model, network, tokenizer, described)
    return folder


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_fusing_is_that_of_mlx_lm(
    kind: str, studio: Studio, tiny_model: Path, tmp_path: Path
) -> None:
    made = adapter(tiny_model, tmp_path / "adapter", kind=kind)
    peer = fused_by_mlx_lm(tiny_model, made, tmp_path / "peer", dequantize=False)
    studio.convert(tiny_model, adapter=made)
    assert not differing(weights(studio.target), weights(peer))
    assert not mx.allclose(logits(studio.target), logits(tiny_model)).item()


@pytest.fixture
def biased_model(tmp_path: Path) -> Path:
    """A random llama of two layers whose attention has biases."""
    folder = tmp_path / "biased"
    folder.mkdir()
    config = tiny_config(write_tiny_tokenizer(folder)) | {"attention_bias": True}
    return as_stored(write_random_llama(folder, config), mx.bfloat16, tmp_path / "biased16")


@pytest.mark.parametrize("dequantize", [False, True], ids=["packed", "plain"])
@pytest.mark.parametrize("mode", ["affine", "mxfp4", "nvfp4"])
def test_an_adapter_is_fused_into_a_quantized_model(
    mode: str, dequantize: bool, studio: Studio, biased_model: Path, tmp_path: Path
) -> None:
    source = quantized(biased_model, tmp_path, mode)
    made = adapter(source, tmp_path / "adapter", kind="lora")
    peer = fused_by_mlx_lm(source, made, tmp_path / "peer", dequantize=dequantize)
    studio.convert(source, adapter=made, dequantize=dequantize)
    ours, theirs = weights(studio.target), weights(peer)
    # mlx-lm's fuse leaves layers without an adapter packed, dequantize or not.
    adapted = {name: array for name, array in theirs.items() if "_proj" in name}
    assert len(adapted) > 14
    assert not differing({name: ours[name] for name in adapted}, adapted)
    assert config(studio.target).get("quantization") == (
        None if dequantize else config(source)["quantization"]
    )


def test_a_quantized_model_is_fused_into_plain_weights(
    studio: Studio, tiny_model: Path, tmp_path: Path
) -> None:
    source = quantized(tiny_model, tmp_path)
    made = adapter(source, tmp_path / "adapter", kind="lora")
    network, _ = mlx_lm.load(str(source), adapter_path=str(made))
    expected = network(mx.array([[5, 80, 3, 3, 200, 17]]))
    studio.convert(source, adapter=made, dequantize=True)
    difference = mx.abs(logits(studio.target) - expected).max() / mx.abs(expected).max()
    assert float(difference) < 2e-6


def test_dora_leaves_16_bits_16_bits(studio: Studio, tiny_model: Path, tmp_path: Path) -> None:
    source = as_stored(tiny_model, mx.bfloat16, tmp_path / "source")
    studio.convert(source, adapter=adapter(source, tmp_path / "adapter", kind="dora"))
    assert {array.dtype for array in weights(studio.target).values()} == {mx.bfloat16}


def test_the_scales_of_a_quantized_model_are_not_rounded(
    studio: Studio, tiny_model: Path, tmp_path: Path
) -> None:
    source = quantized(tiny_model, tmp_path)
    studio.convert(source, dtype="bf16")
    ours, before = weights(studio.target), weights(source)
    packed = {name for name in before if name.endswith((".scales", ".biases"))}
    assert not differing({n: ours[n] for n in packed}, {n: before[n] for n in packed})
    assert ours["model.norm.weight"].dtype == mx.bfloat16
