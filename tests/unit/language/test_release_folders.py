"""Folders of publishers, weights and tokenizer, as a job gets them: loaded whole, or refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from daemon.errors import ModelError
from tests.conftest import write_tiny_tokenizer
from tests.unit.language.original_cases import CASES, release_weights
from tests.unit.language.release_files import split, write_npz, write_params, write_release
from tests.unit.language.torch_files import write_archive, write_checkpoint
from workers.language.formats import estimate_bytes, find_model_files, fingerprint
from workers.language.load import load_language_model
from workers.language.originals.network import open_release

ROWS = 32_768  # of Mistral's vocabulary v3


def wide_release(folder: Path, tokenizer: Path, count: int = 1) -> Path:
    """Write a release whose embeddings have a row for each token of ``tokenizer``."""
    weights = release_weights(CASES["mistral"], ROWS)
    shards = split(weights, count) if count > 1 else [weights]
    write_release(folder, "mistral", shards, vocab_size=ROWS)
    shutil.copy(tokenizer, folder / "tokenizer.model")
    return folder


def test_a_release_has_its_tokenizer_model(
    tmp_path: Path, tokenizer_files: dict[str, Path], mistral: Any
) -> None:
    folder = wide_release(tmp_path / "model", tokenizer_files["v3"], 2)
    model = load_language_model(folder)
    assert model.tokenizer.encode("a b") == [1, *mistral.encode("a b")]
    assert model.tokenizer.eos_token_ids == {2}
    files = find_model_files(folder)
    assert model.fingerprint == fingerprint(files)
    assert estimate_bytes(files, float32=True) == model.bytes
    assert estimate_bytes(files, float32=False) == model.bytes


def test_the_fingerprint_of_a_release_is_of_params_and_weights(tmp_path: Path) -> None:
    weights = release_weights(CASES["llama"])
    changed = {name: array.copy() for name, array in weights.items()}
    changed["norm.weight"][-1] += 1
    folders = [
        write_release(tmp_path / "first", "llama", [weights]),
        write_release(tmp_path / "same", "llama", [weights]),
        write_release(tmp_path / "params", "llama", [weights], norm_eps=1e-4),
        write_release(tmp_path / "weights", "llama", [changed]),
    ]
    first, same, *others = (fingerprint(find_model_files(folder)) for folder in folders)
    assert first == same
    assert len({first, *others}) == 3


def test_a_tokenizer_of_another_size_is_refused(
    refusal: Callable[[Path], str], tmp_path: Path, tokenizer_files: dict[str, Path]
) -> None:
    message = refusal(wide_release(tmp_path / "model", tokenizer_files["v1"]))
    assert "32,000 tokens, and the model's embedding 32,768 rows" in message


@pytest.mark.parametrize("write", [write_release, write_npz])
def test_a_tokenizer_is_needed(
    refusal: Callable[[Path], str], tmp_path: Path, write: Callable[..., Path]
) -> None:
    folder = write(tmp_path / "model", "llama")
    assert "neither tokenizer.json nor tokenizer.model" in refusal(folder)
    (folder / "tekken.json").write_text("{}")
    assert "has its tokenizer in tekken.json alone" in refusal(folder)
    (folder / "tokenizer.model.v3").write_bytes(b"")
    with pytest.raises(ModelError) as refused:
        load_language_model(folder)
    assert "rename it to tokenizer.model" in str(refused.value.remedy)


def test_tokenizer_json_counts_where_it_is_there(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "model", "llama")
    (folder / "tokenizer.model").write_bytes(b"not even looked at")
    write_tiny_tokenizer(folder)
    assert load_language_model(folder).tokenizer.eos_token == "<|im_end|>"


class Command:
    """Pickles as a call of ``os.system``."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self._command,)


def test_a_release_that_runs_something_is_refused_before_it_does(
    refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    """Also as the second of two files, of which the first is in order."""
    folder = write_release(tmp_path / "model", "llama", split(release_weights(CASES["llama"]), 2))
    write_tiny_tokenizer(folder)
    touched = tmp_path / "touched"
    pickled = pickle.dumps({"tok_embeddings.weight": Command(f"touch {touched}")}, 2)
    write_archive(folder / "consolidated.01.pth", pickled, {})
    assert "consolidated.01.pth is refused: it asks to run" in refusal(folder)
    assert not touched.exists()
    pickle.loads(pickled)
    assert touched.exists()


def meta_frequencies(size: int, theta: float) -> np.ndarray:
    """Return Llama 3.1's rotary frequencies as ``apply_scaling`` of Meta's llama-models does."""
    found = []
    for frequency in 1.0 / theta ** (np.arange(0, size, 2) / size):
        length = 2 * np.pi / frequency
        smooth = (8192 / length - 1) / (4 - 1)
        between = (1 - smooth) * frequency / 8 + smooth * frequency
        scaled = frequency / 8 if length > 8192 else between
        found.append(frequency if length < 8192 / 4 else scaled)
    return np.array(found)


def test_positions_of_llama_3_1_are_scaled(tmp_path: Path) -> None:
    """One layer of the true width, of which nothing but headers is read."""
    folder = write_release(
        tmp_path / "model",
        "llama",
        [wide_layer(4096)],
        dim=4096,
        n_layers=1,
        n_heads=32,
        n_kv_heads=1,
        rope_theta=500000.0,
        use_scaled_rope=True,
    )
    network, config, _ = open_release(find_model_files(folder))
    assert config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    wavelengths = np.array(network.layers[0].self_attn.rope._freqs)
    np.testing.assert_allclose(1 / wavelengths, meta_frequencies(128, 500000.0), rtol=1e-5)


def wide_layer(width: int) -> dict[str, np.ndarray]:
    """Return a layer of zeros with 32 heads, one of keys and values, and 8 hidden units."""
    head = width // 32
    shapes = {
        "tok_embeddings": (8, width),
        "norm": (width,),
        "output": (8, width),
        "layers.0.attention.wq": (width, width),
        "layers.0.attention.wk": (head, width),
        "layers.0.attention.wv": (head, width),
        "layers.0.attention.wo": (width, width),
        "layers.0.feed_forward.w1": (8, width),
        "layers.0.feed_forward.w2": (width, 8),
        "layers.0.feed_forward.w3": (8, width),
        "layers.0.attention_norm": (width,),
        "layers.0.ffn_norm": (width,),
    }
    return {f"{name}.weight": np.zeros(shape, np.float16) for name, shape in shapes.items()}


MEMORY = """
import sys
from pathlib import Path
import mlx.core as mx
from workers.language.formats import find_model_files
from workers.language.originals.network import open_release

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

open_release(find_model_files(Path(sys.argv[1])))  # what is set up once
for folder in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmHWM")
    _, _, tensors = open_release(find_model_files(Path(folder)))
    for tensor in tensors.values():
        mx.eval(tensor.read())
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells of peaks")
def test_reading_keeps_nothing_of_the_files(tmp_path: Path, run_fast: Callable[..., str]) -> None:
    """84 MB are read tensor by tensor; the largest has 8 MB."""
    rng = np.random.default_rng(1)
    weights = {
        name: rng.integers(0, 2**15, array.shape, np.uint16).view(np.float16)
        for name, array in large_layers(2).items()
    }
    assert sum(array.nbytes for array in weights.values()) > 80 * 10**6
    sizes = {"dim": 1024, "n_layers": 2, "n_heads": 8, "hidden_dim": 4096, "vocab_size": 4096}
    folders = [tmp_path / kind for kind in ("pth", "npz", "safetensors")]
    for folder in folders:
        write_params(folder, "llama", "params.json", **sizes)
    arrays = {name: mx.array(array) for name, array in weights.items()}
    write_checkpoint(folders[0] / "consolidated.00.pth", weights)
    mx.savez(str(folders[1] / "weights.npz"), **arrays)
    mx.save_safetensors(str(folders[2] / "consolidated.safetensors"), arrays)
    peaks = [int(line) for line in run_fast(MEMORY, *folders).split()]
    assert len(peaks) == 3
    assert max(peaks) < 40 * 10**6


def large_layers(count: int) -> dict[str, np.ndarray]:
    width, hidden = 1024, 4096
    layer = {
        "attention.wq": (width, width),
        "attention.wk": (width, width),
        "attention.wv": (width, width),
        "attention.wo": (width, width),
        "feed_forward.w1": (hidden, width),
        "feed_forward.w2": (width, hidden),
        "feed_forward.w3": (hidden, width),
        "attention_norm": (width,),
        "ffn_norm": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings": (4096, width),
        "norm": (width,),
        "output": (4096, width),
    }
    for number in range(count):
        shapes |= {f"layers.{number}.{name}": shape for name, shape in layer.items()}
    return {f"{name}.weight": np.empty(shape, np.float16) for name, shape in shapes.items()}


def test_params_of_llama_3_2_do_not_say_the_factor(
    refusal: Callable[[Path], str], tmp_path: Path
) -> None:
    folder = write_release(tmp_path / "model", "llama", use_scaled_rope=True)
    write_tiny_tokenizer(folder)
    assert "does not say by which factor" in refusal(folder)


def test_a_truncated_release_is_refused(refusal: Callable[[Path], str], tmp_path: Path) -> None:
    folder = write_release(tmp_path / "model", "llama")
    write_tiny_tokenizer(folder)
    path = folder / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "consolidated.00.pth is not a complete PyTorch checkpoint" in refusal(folder)


def test_weights_without_sizes_are_no_model(refusal: Callable[[Path], str], tmp_path: Path) -> None:
    folder = write_release(tmp_path / "model", "llama")
    (folder / "params.json").write_text(json.dumps({"dim": 32}))
    write_tiny_tokenizer(folder)
    assert "n_layers is missing" in refusal(folder) or "n_heads is missing" in refusal(folder)
