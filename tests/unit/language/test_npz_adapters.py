"""Adapters in NumPy's format mean what the programs that wrote them meant, or are refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from daemon.adapter_config import CONFIG
from daemon.errors import ModelError
from tests.unit.language.conftest import interleaved
from workers.language.adapters import WEIGHTS, load_adapter, read_adapter_config
from workers.language.load import LanguageModel, load_language_model

TOKENS = mx.array([[1, 2, 3, 4]])
RANK = 4

Arrays = dict[str, NDArray[Any]]

# Outputs of the tiny model's projections, of 64 inputs each: 4 heads, 2 for keys and values.
OUTPUTS = {"wq": 64, "wk": 32, "wv": 32}
NAMES = {"wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj"}


def first_form(blocks: tuple[int, ...] = (0, 1)) -> Arrays:
    """Return a random adapter as MLX's first example would have saved it."""
    generator = np.random.default_rng(3)
    arrays: Arrays = {}
    for block in blocks:
        for layer, outputs in OUTPUTS.items():
            path = f"layers.{block}.attention.{layer}"
            arrays[f"{path}.lora_a"] = 0.1 * generator.standard_normal((64, RANK), np.float32)
            arrays[f"{path}.lora_b"] = 0.1 * generator.standard_normal((RANK, outputs), np.float32)
    return arrays


def uploaded(folder: Path, arrays: Arrays, config: dict[str, Any] | None = None) -> Path:
    """Return an adapter's folder as the engine sees it after an upload."""
    folder.mkdir()
    with (folder / WEIGHTS).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type, unused-ignore]
    if config is not None:
        (folder / CONFIG).write_text(json.dumps(config))
    return folder


def refusal(folder: Path, model: LanguageModel) -> str:
    with pytest.raises(ModelError) as refused:
        load_adapter(folder, model)
    assert refused.value.remedy
    return refused.value.message


def merged(tiny_model: Path, arrays: Arrays) -> dict[str, mx.array]:
    """Return llama.cpp's tensors, laid out as Meta's, with the adapter added in at scale 2."""
    weights: Any = mx.load(str(tiny_model / "model.safetensors"))
    found = {}
    for block in (0, 1):
        for layer in OUTPUTS:
            plain = weights[f"model.layers.{block}.{NAMES[layer]}.weight"]
            path = f"layers.{block}.attention.{layer}"
            change = arrays[f"{path}.lora_a"] @ arrays[f"{path}.lora_b"]
            own = interleaved(f"{NAMES[layer]}.weight", plain)
            found[f"blk.{block}.attn_{layer[1]}.weight"] = own + 2 * mx.array(change.T)
    return found


def test_an_adapter_of_2023_changes_meta_s_weights_as_it_was_trained_to(
    tmp_path: Path,
    tiny_model: Path,
    model: LanguageModel,
    write_gguf: Callable[..., Path],
) -> None:
    arrays = first_form()
    path = write_gguf(
        tmp_path / "merged.gguf",
        metadata={"tokenizer.ggml.merges": None},
        tensors=merged(tiny_model, arrays),
    )
    right = load_language_model(path).model(TOKENS)
    given = load_adapter(uploaded(tmp_path / "a", arrays), model).model(TOKENS)
    assert mx.allclose(given, right, rtol=1e-4, atol=1e-4)
    assert not mx.allclose(model.model(TOKENS), right, rtol=1e-2, atol=1e-2)


def test_what_no_file_of_2023_says_is_known(tmp_path: Path) -> None:
    config = read_adapter_config(uploaded(tmp_path / "a", first_form()))
    assert (config.kind, config.rank, config.scale) == ("lora", RANK, 2.0)
    assert config.keys == tuple(sorted(NAMES.values()))


def test_blocks_that_were_not_trained_stay_as_they_are(
    tmp_path: Path, model: LanguageModel
) -> None:
    last = load_adapter(uploaded(tmp_path / "last", first_form((1,))), model).model(TOKENS)
    zeros = {
        name: array * (".1." in name) for name, array in first_form((0, 1)).items()
    } | first_form((1,))
    both = load_adapter(uploaded(tmp_path / "both", zeros), model).model(TOKENS)
    assert mx.array_equal(last, both)


def test_early_mlx_lm_s_own_names_need_the_configuration(
    tmp_path: Path, model: LanguageModel
) -> None:
    arrays = {
        f"model.layers.1.self_attn.v_proj.lora_{leaf}": np.ones(shape, np.float32)
        for leaf, shape in {"a": (64, RANK), "b": (RANK, 32)}.items()
    }
    assert CONFIG in refusal(uploaded(tmp_path / "bare", arrays), model)
    parameters = {"rank": RANK, "scale": 20.0, "keys": ["self_attn.v_proj"]}
    config = {"lora_layers": 1, "lora_parameters": parameters}
    folder = uploaded(tmp_path / "whole", arrays, config)
    assert not mx.array_equal(load_adapter(folder, model).model(TOKENS), model.model(TOKENS))


def test_an_unknown_layer_is_named(tmp_path: Path, model: LanguageModel) -> None:
    arrays = {"layers.0.attention.wx.lora_a": np.zeros((64, 4), np.float32)}
    assert "layers.0.attention.wx.lora_a" in refusal(uploaded(tmp_path / "a", arrays), model)


def test_several_ranks_are_refused(tmp_path: Path, model: LanguageModel) -> None:
    arrays = first_form()
    arrays["layers.0.attention.wq.lora_a"] = np.zeros((64, 8), np.float32)
    assert "several ranks: [4, 8]" in refusal(uploaded(tmp_path / "a", arrays), model)


def test_another_model_s_shape_is_named(tmp_path: Path, model: LanguageModel) -> None:
    arrays = first_form()
    arrays["layers.0.attention.wv.lora_a"] = np.zeros((48, RANK), np.float32)
    message = refusal(uploaded(tmp_path / "a", arrays), model)
    assert "model.layers.0.self_attn.v_proj.lora_a has the shape 48x4" in message


def test_objects_are_never_unpickled(tmp_path: Path, model: LanguageModel) -> None:
    arrays = {"layers.0.attention.wq.lora_a": np.array([{}], dtype=object)}
    assert "object" in refusal(uploaded(tmp_path / "a", arrays), model)


def test_a_truncated_archive_is_refused(tmp_path: Path, model: LanguageModel) -> None:
    folder = uploaded(tmp_path / "a", first_form())
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    assert "not a complete archive" in refusal(folder, model)


def test_an_archive_of_something_else_is_refused(tmp_path: Path, model: LanguageModel) -> None:
    folder = uploaded(tmp_path / "a", {})
    with zipfile.ZipFile(folder / WEIGHTS, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02.")
    assert "not a complete archive" in refusal(folder, model)


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(
    tmp_path: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.adapter_files._MOST_BYTES", 1000)
    assert "at most 1000" in refusal(uploaded(tmp_path / "a", first_form()), model)


def test_a_damaged_packed_array_is_told_of(tmp_path: Path, model: LanguageModel) -> None:
    """Its header is whole, so only the reading of its numbers meets the damage."""
    folder = uploaded(tmp_path / "a", first_form())
    with (folder / WEIGHTS).open("wb") as file:
        np.savez_compressed(file, **first_form())  # type: ignore[arg-type, unused-ignore]
    whole = bytearray((folder / WEIGHTS).read_bytes())
    with zipfile.ZipFile(folder / WEIGHTS) as archive:
        (first, *_) = archive.infolist()
    for damage in (60, first.compress_size // 2):
        data, place = bytearray(whole), first.header_offset + damage
        data[place : place + 20] = b"\xff" * 20
        (folder / WEIGHTS).write_bytes(data)
        assert "not a complete archive of arrays" in refusal(folder, model)
