"""Fixtures of the language-model tests: warm models, and files written here."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor

from daemon.errors import ModelError
from workers.language.load import LanguageModel, load_language_model
from workers.language.sentencepiece_folder import load_sentencepiece_folder
from workers.models import ModelCache

GIB = 2**30


@pytest.fixture
def cache() -> Iterator[ModelCache]:
    """An empty cache with room for every tiny model."""
    models = ModelCache(GIB, time.monotonic)
    yield models
    models.clear()


@pytest.fixture
def model(tiny_model: Path) -> LanguageModel:
    """The tiny model, freshly loaded."""
    return load_language_model(tiny_model)


@pytest.fixture
def spm_folder(sentencepiece_model: Path, tmp_path: Path) -> Path:
    """A copy, ``copy``, of the model with a ``tokenizer.model`` alone that a test may damage."""
    return Path(shutil.copytree(sentencepiece_model, tmp_path / "copy"))


@pytest.fixture(scope="session")
def mistral(tokenizer_files: dict[str, Path]) -> Any:
    """SentencePiece's own reader of that model's tokenizer."""
    return SentencePieceProcessor(model_file=str(tokenizer_files["v3"]))


@pytest.fixture(scope="session")
def configure() -> Callable[..., Any]:
    """Write a folder's ``tokenizer_config.json`` and load its tokenizer."""

    def configured(folder: Path, **settings: Any) -> Any:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return load_sentencepiece_folder(folder)

    return configured


@pytest.fixture(scope="session")
def refusal() -> Callable[[Path], str]:
    """Load a model that is refused; return the message."""

    def refused(folder: Path) -> str:
        with pytest.raises(ModelError) as error:
            load_language_model(folder)
        assert error.value.remedy
        return error.value.message

    return refused


@pytest.fixture
def write_gguf(tiny_model: Path) -> Callable[..., Path]:
    """Write the tiny model as GGUF: ``write_gguf(path, metadata={…}, tensors={…})``.

    ``metadata`` and ``tensors`` replace or add entries; None removes one.
    """
    import mlx.core as mx

    def write(
        path: Path, *, metadata: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None
    ) -> Path:
        weights: Any = mx.load(str(tiny_model / "model.safetensors"))
        arrays = {gguf_name(name): interleaved(name, array) for name, array in weights.items()}
        values = gguf_metadata(tiny_model) | (metadata or {})
        mx.save_gguf(
            str(path),
            {
                name: array
                for name, array in (arrays | (tensors or {})).items()
                if array is not None
            },
            {name: value for name, value in values.items() if value is not None},
        )
        return path

    return write


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a tensor."""
    stem, leaf = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{leaf}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[inner]}.{leaf}"


def interleaved(name: str, array: Any) -> Any:
    """Reorder the rows of q (4 heads) and k (2 heads) from halves to pairs, as llama.cpp does."""
    heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
    if heads is None:
        return array
    rows, columns = array.shape
    halves = array.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def gguf_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata that llama.cpp's converter would write for the tiny model."""
    import mlx.core as mx

    config = json.loads((folder / "config.json").read_bytes())
    vocabulary = json.loads((folder / "tokenizer.json").read_bytes())["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)

    def number(key: str) -> Any:
        return mx.array(config[key], dtype=mx.uint32)

    return {
        "general.architecture": "llama",
        "llama.embedding_length": number("hidden_size"),
        "llama.block_count": number("num_hidden_layers"),
        "llama.feed_forward_length": number("intermediate_size"),
        "llama.attention.head_count": number("num_attention_heads"),
        "llama.attention.head_count_kv": number("num_key_value_heads"),
        "llama.attention.layer_norm_rms_epsilon": mx.array(config["rms_norm_eps"]),
        "llama.rope.freq_base": mx.array(config["rope_theta"]),
        "llama.context_length": number("max_position_embeddings"),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.token_type": mx.array([3, 3, *[1] * (len(tokens) - 2)], dtype=mx.int32),
        "tokenizer.ggml.bos_token_id": mx.array(0, dtype=mx.uint32),
        "tokenizer.ggml.eos_token_id": mx.array(1, dtype=mx.uint32),
        "tokenizer.chat_template": (folder / "chat_template.jinja").read_text(encoding="utf-8"),
    }
