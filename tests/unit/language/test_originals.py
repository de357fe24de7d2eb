"""Releases of Meta and Mistral compute what transformers computes, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper

from daemon.errors import ModelError
from tests.unit.language.original_cases import CASES, TOKENS, release_weights
from tests.unit.language.release_files import split, write_release, write_safetensors_release
from workers.language.formats import find_model_files
from workers.language.load import to_float32
from workers.language.originals.network import Network, open_release
from workers.language.source import ModelSource, fill

WQ = "layers.0.attention.wq.weight"


def opened(folder: Path) -> Network:
    return open_release(find_model_files(folder))


def loaded(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the network with its weights, and its configuration."""
    network, config, tensors = opened(folder)
    source = ModelSource(
        network=network, config=config, tokenizer=TokenizerWrapper, tensors=tensors
    )
    return fill(source, lambda array: array), config


def logits(folder: Path) -> np.ndarray:
    return np.array(loaded(folder)[0](mx.array(TOKENS)))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        opened(folder)
    assert refused.value.remedy
    assert folder.name in refused.value.message
    return refused.value.message


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_safetensors_release(tmp_path / "model", "mistral", 2)
    (folder / "consolidated-00002-of-00002.safetensors").unlink()
    assert "consolidated-00002-of-00002.safetensors is missing" in refusal(folder)


@pytest.mark.parametrize(("dtype", "stored"), [(mx.float16, np.float16), (mx.bfloat16, np.uint16)])
def test_weights_keep_the_type_that_they_are_stored_in(
    tmp_path: Path, dtype: Any, stored: Any
) -> None:
    """A 16-bit release computes what a float32 one of the same rounded weights does."""
    weights = release_weights(CASES["mistral"])
    rounded = {name: mx.array(array).astype(dtype) for name, array in weights.items()}
    short = {name: np.array(array.view(mx.uint16)).view(stored) for name, array in rounded.items()}
    wide = {name: np.array(array.astype(mx.float32)) for name, array in rounded.items()}
    model, _ = loaded(write_release(tmp_path / "short", "mistral", [short]))
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {dtype}
    to_float32(model)
    expected = logits(write_release(tmp_path / "wide", "mistral", [wide]))
    np.testing.assert_array_equal(np.array(model(mx.array(TOKENS))), expected)


def test_without_an_output_layer_the_embeddings_are_it(tmp_path: Path) -> None:
    weights = release_weights(CASES["llama"])
    tied = {name: array for name, array in weights.items() if name != "output.weight"}
    explicit = weights | {"output.weight": weights["tok_embeddings.weight"]}
    model, config = loaded(write_release(tmp_path / "tied", "llama", [tied]))
    assert config["tie_word_embeddings"] is True
    expected = logits(write_release(tmp_path / "explicit", "llama", [explicit]))
    np.testing.assert_allclose(np.array(model(mx.array(TOKENS))), expected, rtol=0, atol=1e-5)


def test_a_file_missing_among_others_is_named(tmp_path: Path) -> None:
    shards = split(release_weights(CASES["llama"]), 4)
    folder = write_release(tmp_path / "model", "llama", shards)
    (folder / "consolidated.02.pth").unlink()
    assert "consolidated.02.pth is missing" in refusal(folder)


def test_the_last_file_missing_shows_in_the_shapes(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "model", "llama", split(release_weights(CASES["llama"]), 2))
    (folder / "consolidated.01.pth").unlink()
    message = refusal(folder)
    assert "contradicts its params.json" in message
    assert "(48, 16), and has to have (48, 32)" in message
    assert "as if there were 1 of 2 weights files" in message


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "model", "llama")
    file = folder / "consolidated.00.pth"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"consolidated\.00\.pth is not a complete PyTorch"):
        opened(folder)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"n_heads": 8}, "layers.0.attention.wq.weight has the shape (64, 32)"),
        ({"n_kv_heads": 4}, "layers.0.attention.wk.weight has the shape (32, 32)"),
        ({"hidden_dim": 60}, "layers.0.feed_forward.w1.weight has the shape (64, 32)"),
        ({"vocab_size": 50}, "tok_embeddings.weight has the shape (48, 32), and has to have (50"),
        ({"n_layers": 4}, "none of its files has the tensor layers.3"),
        ({"n_layers": 2}, "a tensor layers.2"),
        ({"n_kv_heads": 3}, "n_heads 4 is no multiple of n_kv_heads 3"),
        ({"head_dim": 7}, "heads of 7"),
        ({"dim": None}, "dim is missing"),
        ({"dim": "32"}, "dim is '32'"),
        ({"n_layers": True}, "n_layers is True"),
        ({"norm_eps": "small"}, "norm_eps is 'small'"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        ({"use_scaled_rope": True}, "use_scaled_rope"),
        ({"moe": {"num_experts": 8}}, "a mixture of experts"),
    ],
)
def test_params_that_contradict_the_weights_are_refused(
    tmp_path: Path, params: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(write_release(tmp_path / "model", "mistral", **params))


@pytest.mark.parametrize("content", [b"{", b"[]", b"[" * 100_000])
def test_unreadable_params_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = write_release(tmp_path / "model", "llama")
    (folder / "params.json").write_bytes(content)
    assert "model/params.json" in refusal(folder)


def test_params_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "model", "llama")
    (folder / "params.json").unlink()
    assert "has consolidated.00.pth, and no params.json" in refusal(folder)


def test_files_of_different_models_are_refused(tmp_path: Path) -> None:
    first, second = split(release_weights(CASES["llama"]), 2)
    second[WQ] = second[WQ][:, :30]
    message = refusal(write_release(tmp_path / "model", "llama", [first, second]))
    assert f"the pieces of {WQ} have the shapes (16, 32), (16, 30)" in message


def test_safetensors_of_other_types_are_refused(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "model", "llama")
    mx.save_safetensors(str(folder / "consolidated.safetensors"), {WQ: mx.array([1])})
    with pytest.raises(ModelError, match="of the type I32"):
        opened(folder)


def test_a_folder_without_weights_says_which_it_needs(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "model", "llama")
    (folder / "consolidated.00.pth").unlink()
    assert "neither consolidated.00.pth nor consolidated.safetensors" in refusal(folder)
