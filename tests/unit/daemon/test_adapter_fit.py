"""An uploaded adapter is refused at once where headers show that it cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from daemon.adapter_fit import check_uploaded_adapter
from daemon.errors import SpecRefusedError
from tests.unit.image_folders import write_json
from tests.unit.language_folders import write_gguf

LAYER = "model.layers.1.self_attn.q_proj"
LORA = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 2, "scale": 20.0}}
PEFT = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
FITTING = {f"{LAYER}.lora_a": (64, 2), f"{LAYER}.lora_b": (2, 32)}

Shapes = Mapping[str, tuple[int, ...]]


def adapter(folder: Path, shapes: Shapes = FITTING, config: Any = LORA) -> dict[str, Any]:
    """Write an adapter as it lies after an upload, under names that say nothing."""
    folder.mkdir()
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "0a")
    (folder / "0b").write_text(json.dumps(config))
    return {
        "adapter.weights": ("adapters.safetensors", folder / "0a"),
        "adapter.config": ("adapter_config.json", folder / "0b"),
    }


def archive(folder: Path, shapes: Shapes) -> dict[str, Any]:
    folder.mkdir()
    with (folder / "0a").open("wb") as file:
        np.savez(file, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})  # type: ignore[arg-type, unused-ignore]
    return {"adapter.weights": ("adapters.npz", folder / "0a")}


def folder_model(folder: Path, tensors: Mapping[str, np.ndarray], **config: Any) -> Path:
    write_json(folder / "config.json", {"model_type": "llama", **config})
    save_file(dict(tensors), folder / "model.safetensors")
    return folder


def plain(folder: Path) -> Path:
    """A model of two blocks, with a layer from 64 to 32 in each."""
    matrix = np.zeros((32, 64), np.float16)
    layers = (f"model.layers.{block}.self_attn.q_proj.weight" for block in (0, 1))
    return folder_model(folder, dict.fromkeys(layers, matrix))


def quantized(folder: Path) -> Path:
    """The same with four bits: 8 packed words and 2 scales a row."""
    tensors: dict[str, np.ndarray] = {
        f"{LAYER}.weight": np.zeros((32, 8), np.uint32),
        f"{LAYER}.scales": np.zeros((32, 2), np.float16),
        f"{LAYER}.biases": np.zeros((32, 2), np.float16),
    }
    return folder_model(folder, tensors, quantization={"bits": 4, "group_size": 32})


def release(folder: Path) -> Path:
    """The same as Meta names it."""
    write_json(folder / "params.json", {"dim": 64})
    names = (f"layers.{block}.attention.wq.weight" for block in (0, 1))
    matrix = np.zeros((32, 64), np.float16)
    save_file(dict.fromkeys(names, matrix), folder / "consolidated.safetensors")
    return folder


def gguf(folder: Path) -> Path:
    return write_gguf(folder / "m.gguf", {"blk.1.attn_q.weight": ("Q8_0", (32, 64))})


FORMATS = [plain, quantized, release, gguf]


def refusal(files: dict[str, Any], model: Path | None = None) -> SpecRefusedError:
    with pytest.raises(SpecRefusedError) as refused:
        check_uploaded_adapter(files, "adapter", "m", model)
    assert refused.value.field == "adapter"
    assert refused.value.remedy
    return refused.value


@pytest.mark.parametrize("model", FORMATS)
def test_what_fits_passes(tmp_path: Path, model: Any) -> None:
    there = model(tmp_path / "m")
    check_uploaded_adapter(adapter(tmp_path / "a"), "adapter", "m", there)


@pytest.mark.parametrize("model", FORMATS)
def test_another_size_is_named(tmp_path: Path, model: Any) -> None:
    there = model(tmp_path / "m")
    wider = adapter(tmp_path / "a", FITTING | {f"{LAYER}.lora_a": (65, 2)})
    assert f"{LAYER}.lora_a has the shape 65x2, and that layer of m has 64 inputs" in (
        refusal(wider, there).message
    )
    longer = adapter(tmp_path / "b", FITTING | {f"{LAYER}.lora_b": (2, 64)})
    assert "32 outputs" in refusal(longer, there).message


@pytest.mark.parametrize("model", FORMATS)
def test_a_layer_behind_the_last_is_named(tmp_path: Path, model: Any) -> None:
    further = {name.replace(".1.", ".2."): shape for name, shape in FITTING.items()}
    message = refusal(adapter(tmp_path / "a", further), model(tmp_path / "m")).message
    assert "is in layer 2; the last one of m is 1" in message


def test_layers_that_the_headers_do_not_name_are_the_engine_s(tmp_path: Path) -> None:
    merged = {name.replace("q_proj", "qkv_proj"): shape for name, shape in FITTING.items()}
    check_uploaded_adapter(adapter(tmp_path / "a", merged), "adapter", "m", plain(tmp_path / "m"))


def test_pefts_form_is_compared_too(tmp_path: Path) -> None:
    name = f"base_model.model.{LAYER}.lora_"
    shapes = {f"{name}A.weight": (2, 65), f"{name}B.weight": (32, 2)}
    message = refusal(adapter(tmp_path / "a", shapes, PEFT), plain(tmp_path / "m")).message
    assert f"{LAYER}.lora_a has the shape 65x2" in message


def test_an_archive_of_2023_is_compared_too(tmp_path: Path) -> None:
    name = "layers.1.attention.wq.lora_"
    model = plain(tmp_path / "m")
    check_uploaded_adapter(
        archive(tmp_path / "a", {f"{name}a": (64, 2), f"{name}b": (2, 32)}), "adapter", "m", model
    )
    wrong = archive(tmp_path / "b", {f"{name}a": (64, 2), f"{name}b": (2, 48)})
    assert "32 outputs" in refusal(wrong, model).message


def test_other_methods_are_refused_by_name(tmp_path: Path) -> None:
    files = adapter(tmp_path / "a", config=PEFT | {"peft_type": "IA3"})
    assert "peft_type = 'IA3'" in refusal(files).message


def test_settings_out_of_bounds_are_refused(tmp_path: Path) -> None:
    files = adapter(tmp_path / "a", config=LORA | {"lora_parameters": {"rank": 0, "scale": 1.0}})
    assert "adapter_config.json has rank = 0" in refusal(files).message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x80\x02}q\x00.", "adapters.safetensors was written by PyTorch as a pickle"),
        (b"", "adapters.safetensors is not a complete safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "safetensors is a Git LFS pointer"),
    ],
)
def test_other_files_are_refused_by_their_name(tmp_path: Path, content: bytes, words: str) -> None:
    files = adapter(tmp_path / "a")
    (tmp_path / "a" / "0a").write_bytes(content)
    assert words in refusal(files).message


def test_weights_without_settings_are_refused(tmp_path: Path) -> None:
    files = adapter(tmp_path / "a")
    del files["adapter.config"]
    assert "no adapter_config.json" in refusal(files).message


def test_a_job_s_adapter_and_none_are_no_files(tmp_path: Path) -> None:
    check_uploaded_adapter({}, "adapter", "m", plain(tmp_path))
