from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model, save_config

from daemon.errors import ModelError
from workers.language import formats
from workers.language.load import LanguageModel, load_language_model


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def quantise(folder: Path) -> nn.Module:
    """Quantise the model in ``folder`` on disk to 4 bits and bfloat16; return what was stored."""
    model, config = load_model(folder)
    model.set_dtype(mx.bfloat16)
    nn.quantize(model, group_size=32, bits=4)
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"}
    )
    save_config(config | {"quantization": {"group_size": 32, "bits": 4}}, folder / "config.json")
    return model


def test_loading_leaves_the_global_random_state_alone(tiny_model: Path) -> None:
    mx.random.seed(7)
    expected = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(7)
    load_language_model(tiny_model)
    assert mx.random.uniform(shape=(4,)).tolist() == expected


def test_a_quantised_model_is_expanded_to_float32_on_the_cpu(folder: Path) -> None:
    stored = quantise(folder)
    loaded = load_language_model(folder)
    assert {array.dtype for _, array in tree_flatten(loaded.model.parameters())} == {mx.float32}
    stored.set_dtype(mx.float32)
    tokens = mx.array([[1, 2, 3]])
    assert mx.allclose(loaded.model(tokens), stored(tokens), atol=1e-4)


def test_the_estimate_is_what_loading_takes(folder: Path) -> None:
    plain = formats.estimate_bytes(formats.find_model_files(folder), float32=True)
    assert plain == load_language_model(folder).bytes
    quantise(folder)
    assert formats.estimate_bytes(formats.find_model_files(folder), float32=True) == plain
    packed = formats.estimate_bytes(formats.find_model_files(folder), float32=False)
    assert packed < plain / 4


def test_the_fingerprint_is_of_the_weights_not_of_the_place(
    folder: Path, model: LanguageModel
) -> None:
    assert load_language_model(folder).fingerprint == model.fingerprint


def test_the_fingerprint_tells_fine_tunings_of_one_model_apart(folder: Path) -> None:
    files = formats.find_model_files(folder)
    before = formats.fingerprint(files)
    weights: Any = mx.load(str(folder / "model.safetensors"))
    weights = {name: mx.array(array) for name, array in weights.items()}
    mx.eval(weights)
    weights["model.layers.1.self_attn.v_proj.weight"] *= 1.01
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    assert formats.fingerprint(files) != before


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load_language_model(folder)
    assert refused.value.remedy
    return refused.value.message


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(tmp_path / "none")


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    assert "neither config.json nor a GGUF" in refusal(tmp_path)


def test_several_gguf_files_are_refused(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert "a.gguf, b.gguf" in refusal(tmp_path)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no model*.safetensors" in refusal(folder)


@pytest.mark.parametrize("kept", [0, 7, 100, 5000, 200_000])
def test_truncated_weights(folder: Path, kept: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    assert "model.safetensors is" in refusal(folder)


def test_a_damaged_header(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:8] + b"!" + data[9:])
    assert "unreadable header" in refusal(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00002.safetensors is missing" in refusal(folder)


def test_missing_tensors(folder: Path) -> None:
    weights: Any = mx.load(str(folder / "model.safetensors"))
    weights.pop("model.layers.1.mlp.up_proj.weight")
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    assert "model.layers.1.mlp.up_proj.weight" in refusal(folder)


@pytest.mark.parametrize("layers", [3, 20_000, 10**30])
def test_more_layers_than_the_weights_have_are_not_built(folder: Path, layers: int) -> None:
    edit_config(folder, num_hidden_layers=layers)
    assert "config.json tells of " in refusal(folder)
    assert "layers, and the weights have 2" in refusal(folder)


def test_a_pipe_in_the_folder_is_not_waited_for(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert "copy: config.json cannot be read: it is a pipe and no regular file" in refusal(folder)


def test_an_unreadable_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "copy/config.json cannot be read" in refusal(folder)


def test_a_config_without_architecture(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert "no model_type" in refusal(folder)


def test_a_config_without_sizes(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert "hidden_size" in refusal(folder)


def test_an_unknown_architecture(folder: Path) -> None:
    edit_config(folder, model_type="nonesuch")
    assert "nonesuch" in refusal(folder)


def test_a_model_that_brings_code_is_refused_and_the_code_not_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('run')")
    edit_config(folder, model_file="evil.py")
    assert "evil.py" in refusal(folder)


def test_a_tokenizer_that_brings_code_is_not_run(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit('run')")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    path.write_text(json.dumps(config))
    load_language_model(folder)


def test_a_missing_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert "no tokenizer" in refusal(folder)


def test_a_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    assert "cannot be loaded" in refusal(folder)


def test_weights_of_another_shape(
    folder: Path, make_tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    edit_config(folder, intermediate_size=256)
    assert "(256,64)" in refusal(folder).replace(" ", "")
