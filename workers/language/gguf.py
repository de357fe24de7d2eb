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
_SUPPORTED = (
    "GGUF files of the llama architecture can be read, with a tokenizer of the kinds of "
    "Llama 2 and 3, Mistral 7B or SmolLM2"
)
_FREQUENCY_FACTORS = "rope_freqs.weight"


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
    factors = weights.pop(_FREQUENCY_FACTORS, None)
    model = build_llama(config, llama_weights(path, weights, config))
    if factors is not None:
        scale_frequencies(path, model, factors)
    return model, config, tokenizer


class FrequencyRoPE(nn.Module):  # type: ignore[misc]
    """Rotary positions with a wavelength for each pair of dimensions, halves layout.

    ``wavelengths``: (dims / 2,), positions per radian.
    """

    def __init__(self, wavelengths: mx.array) -> None:
        super().__init__()
        self._freqs = wavelengths  # mx.fast.rope's freqs divide the position

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate ``x``, (…, length, dims), from the position ``offset`` on."""
        return mx.fast.rope(
            x,
            2 * self._freqs.size,
            traditional=False,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self._freqs,
        )


def scale_frequencies(path: Path, model: nn.Module, factors: mx.array) -> None:
    """Divide the rotary frequencies of ``model`` by ``factors``, (head_dim / 2,).

    llama.cpp's converter computes Llama 3.1's scaling into these factors, and the file does not
    keep the parameters, so mlx-lm's configuration cannot express them.

    Raises:
        ModelError: the factors do not fit the heads, or positions are scaled in another way, too.
    """
    args = model.args
    dims = args.head_dim or args.hidden_size // args.num_attention_heads
    if factors.shape != (dims // 2,) or args.rope_scaling:
        raise ModelError(
            f"{path.name} has {_FREQUENCY_FACTORS} of the shape {factors.shape}, "
            f"heads of {dims} and the scaling {args.rope_scaling}, which do not go together",
            remedy=_SUPPORTED,
        )
    bases = args.rope_theta ** (mx.arange(0, dims, 2, dtype=mx.float32) / dims)
    wavelengths = bases * factors.astype(mx.float32)
    mx.eval(wavelengths)
    for layer in model.model.layers:
        layer.self_attn.rope = FrequencyRoPE(wavelengths)


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
