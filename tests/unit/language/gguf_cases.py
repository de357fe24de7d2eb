"""The GGUF files of the references, for the script that writes them and for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent / "references" / "gguf"
VOCABULARY = 48
TOKENS = [[(7 * place * place + 3 * place + 1) % VOCABULARY for place in range(40)]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network: llama.cpp's architecture, transformers' class, what its configuration has beyond
    the common sizes, and the metadata that follow from it.

    ``metadata`` are keys below the architecture. ``pre`` is the tokenizer's pre-tokenizer.
    """

    architecture: str
    model: str
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    pre: str = "gpt-2"


_WIDE_HEADS: dict[str, Any] = {"head_dim": 16}
_KEYS: dict[str, Any] = {"attention.key_length": 16, "attention.value_length": 16}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "long_factor": [1.5, 3.0],
    "short_factor": [1.0, 1.1],
    "original_max_position_embeddings": 16,
}

CASES = {
    "llama": Case(
        architecture="llama",
        model="Llama",
        config=_WIDE_HEADS | {"tie_word_embeddings": False},
        metadata=_KEYS | {"rope.dimension_count": 16},
    ),
    "llama-3.1": Case(
        architecture="llama",
        model="Llama",
        config=_WIDE_HEADS | {"rope_parameters": _LLAMA3, "tie_word_embeddings": True},
        metadata=_KEYS,
    ),
    "llama-linear": Case(
        architecture="llama",
        model="Llama",
        config={
            "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
            "tie_word_embeddings": True,
        },
        metadata={"rope.scaling.type": "linear", "rope.scaling.factor": 2.0},
    ),
    "mistral3": Case(
        architecture="mistral3",
        model="Mistral",
        config=_WIDE_HEADS | {"tie_word_embeddings": False},
        metadata=_KEYS,
    ),
    "qwen2": Case(
        architecture="qwen2",
        model="Qwen2",
        config={"tie_word_embeddings": True},
        pre="qwen2",
    ),
    "qwen2-yarn": Case(
        architecture="qwen2",
        model="Qwen2",
        config={"rope_parameters": _YARN, "tie_word_embeddings": False},
        metadata={
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 16,
        },
        pre="qwen2",
    ),
    "qwen3": Case(
        architecture="qwen3",
        model="Qwen3",
        config=_WIDE_HEADS | {"tie_word_embeddings": True},
        metadata=_KEYS,
        pre="qwen2",
    ),
    "phi2": Case(
        architecture="phi2",
        model="Phi",
        config={
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
            "tie_word_embeddings": False,
        },
        metadata={"rope.dimension_count": 4, "attention.layer_norm_epsilon": 1e-5},
        pre="phi-2",
    ),
    "phi3": Case(
        architecture="phi3",
        model="Phi3",
        config={"tie_word_embeddings": False, "pad_token_id": 0},
        metadata={"rope.dimension_count": 8, "rope.scaling.original_context_length": 64},
    ),
    "phi3-long": Case(
        architecture="phi3",
        model="Phi3",
        config={
            "rope_parameters": _LONGROPE | {"partial_rotary_factor": 0.5},
            "original_max_position_embeddings": 16,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
        },
        metadata={"rope.dimension_count": 4, "rope.scaling.original_context_length": 16},
    ),
    "gemma": Case(
        architecture="gemma",
        model="Gemma",
        config=_WIDE_HEADS | {"tie_word_embeddings": True},
        metadata=_KEYS,
    ),
    "gemma2": Case(
        architecture="gemma2",
        model="Gemma2",
        config=_WIDE_HEADS
        | {
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 20.0,
            "final_logit_softcapping": 15.0,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
        },
        metadata=_KEYS
        | {
            "attn_logit_softcapping": 20.0,
            "final_logit_softcapping": 15.0,
            "attention.sliding_window": 4096,
        },
    ),
    # 16 numbers wide: mlx-lm rounds the root of the width to bfloat16, and that of 16 is exact.
    "gemma3": Case(
        architecture="gemma3",
        model="Gemma3",
        config=_WIDE_HEADS
        | {
            "hidden_size": 16,
            "num_hidden_layers": 7,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            },
            "tie_word_embeddings": True,
        },
        metadata=_KEYS
        | {
            "attention.sliding_window": 8,
            "rope.freq_base": 1e6,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
}
