"""GGUF files of the llama architecture as mlx-lm networks.

The rule this module protects: names are matched exactly, and the rotary rows of q and k are put
back exactly once. llama.cpp's converter interleaves the two halves of each head's rows; mlx-lm's
llama expects them one after the other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models import llama
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import infer_quant_config

from daemon.errors import ModelError
from workers.language.headers import read_gguf_header
from workers.language.tokenizer import gguf_tokenizer

_BLOCK = re.compile(r"blk\.(\d+)\.([a-z_]+)\.(weight|scales|biases)")
_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP = re.compile(r"(token_embd|output_norm|output)\.(weight|scales|biases)")
_TOP_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
# mlx-lm's key: the metadata's key below the architecture.
_SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_OPTIONS = {
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rope_theta": "rope.freq_base",
}
_SUPPORTED = "GGUF files of the llama architecture can be read (Llama, Mistral, SmolLM2)"


def load_gguf(path: Path) -> tuple[nn.Module, dict[str, Any], TokenizerWrapper]:
    """Load a GGUF file; quantised tensors stay quantised, each with its own bits.

    Returns:
        The network, its configuration in mlx-lm's terms, and its tokenizer.

    Raises:
        ModelError: another architecture, a tensor or tokenizer that is not supported.
    """
    header = read_gguf_header(path)
    _check_architecture(path, header.metadata)
    loaded: Any = mx.load(str(path), return_metadata=True)
    weights, metadata = loaded
    tokenizer = gguf_tokenizer(metadata)
    config = llama_config(path, {**metadata, **header.metadata}, weights)
    return build_llama(config, llama_weights(path, weights, config)), config, tokenizer


def _check_architecture(path: Path, metadata: Any) -> None:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelError(
            f"{path.name} is of the architecture {architecture!r}, which is not supported as GGUF",
            remedy=f"{_SUPPORTED}; other models as Hugging Face or MLX folders",
        )
    if metadata.get("llama.expert_count"):
        raise ModelError(
            f"{path.name} is a mixture of {metadata['llama.expert_count']} experts, "
            "which is not supported as GGUF",
            remedy="use the model's Hugging Face or MLX folder",
        )
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ModelError(
            f"{path.name} scales positions by {scaling!r}, which is not supported as GGUF",
            remedy="use the model's Hugging Face or MLX folder",
        )


def llama_config(path: Path, metadata: Any, weights: dict[str, mx.array]) -> dict[str, Any]:
    """Return the configuration that mlx-lm's llama needs, from a GGUF file's metadata.

    Raises:
        ModelError: a required value is missing.
    """
    missing = [key for key in _SIZES.values() if f"llama.{key}" not in metadata]
    if missing:
        raise ModelError(
            f"{path.name} is incomplete: its metadata has no llama.{missing[0]}",
            remedy="download the file again",
        )
    config: dict[str, Any] = {key: metadata[f"llama.{name}"] for key, name in _SIZES.items()}
    for key, name in _OPTIONS.items():
        if f"llama.{name}" in metadata:
            config[key] = metadata[f"llama.{name}"]
    if metadata.get("llama.rope.scaling.type") == "linear":
        config["rope_scaling"] = {
            "type": "linear",
            "factor": metadata.get("llama.rope.scaling.factor", 1.0),
        }
    return config | {
        "model_type": "llama",
        "vocab_size": len(metadata.get("tokenizer.ggml.tokens", ())),
        "tie_word_embeddings": "output.weight" not in weights,
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
    }


def mlx_name(name: str) -> str | None:
    """Return mlx-lm's name of a GGUF tensor, None if there is none."""
    if match := _BLOCK.fullmatch(name):
        layer = _LAYER_NAMES.get(match[2])
        return f"model.layers.{match[1]}.{layer}.{match[3]}" if layer else None
    if match := _TOP.fullmatch(name):
        return f"{_TOP_NAMES[match[1]]}.{match[2]}"
    return None


def llama_weights(
    path: Path, weights: dict[str, mx.array], config: dict[str, Any]
) -> dict[str, mx.array]:
    """Rename every tensor and undo the interleaving of q and k.

    Raises:
        ModelError: a tensor has no place in the llama network.
    """
    heads = {
        "q_proj": int(config["num_attention_heads"]),
        "k_proj": int(config.get("num_key_value_heads", config["num_attention_heads"])),
    }
    renamed: dict[str, mx.array] = {}
    for name, array in weights.items():
        target = mlx_name(name)
        if target is None:
            raise ModelError(
                f"{path.name} has a tensor {name}, which the llama network does not know",
                remedy=_SUPPORTED,
            )
        rotary = heads.get(target.split(".")[-2])
        renamed[target] = array if rotary is None else split_halves(array, rotary)
    return renamed


def split_halves(array: mx.array, heads: int) -> mx.array:
    """Put the rows of each head from pairs (0, h, 1, h+1, …) into halves (0, 1, …, h, h+1, …).

    ``array``: (heads · head_dim, n), the weight of q or k, or the scales or biases of one.
    """
    rows, columns = array.shape
    pairs = array.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def build_llama(config: dict[str, Any], weights: dict[str, mx.array]) -> nn.Module:
    """Build mlx-lm's llama around ``weights``, each layer quantised as its own tensors are."""
    model = llama.Model(llama.ModelArgs.from_dict(config))

    def quantised(name: str, module: nn.Module) -> bool | dict[str, Any]:
        if f"{name}.scales" not in weights or not hasattr(module, "to_quantized"):
            return False
        return dict(infer_quant_config(name, module, weights))

    nn.quantize(model, class_predicate=quantised)
    model.load_weights(list(weights.items()), strict=True)
    return model
