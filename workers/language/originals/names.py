"""The names of a release's tensors, and how Meta splits each over several files.

The rule this module protects: names are matched exactly.

Meta splits a network over processes: the rows of what goes into attention and the feed-forward
layer (axis 0), the columns of what comes out of them (axis 1). Norms are in every file.
"""

from __future__ import annotations

import re

EMBEDDINGS, OUTPUT = "tok_embeddings.weight", "output.weight"
FIRST_GATE = "layers.0.feed_forward.w1.weight"
FREQUENCIES = "rope.freqs"  # follow from rope_theta

# A release's name: mlx-lm's, and the axis along which Meta splits it (None: not split).
_LAYER: dict[str, tuple[str, int | None]] = {
    "attention.wq": ("self_attn.q_proj", 0),
    "attention.wk": ("self_attn.k_proj", 0),
    "attention.wv": ("self_attn.v_proj", 0),
    "attention.wo": ("self_attn.o_proj", 1),
    "feed_forward.w1": ("mlp.gate_proj", 0),
    "feed_forward.w2": ("mlp.down_proj", 1),
    "feed_forward.w3": ("mlp.up_proj", 0),
    "attention_norm": ("input_layernorm", None),
    "ffn_norm": ("post_attention_layernorm", None),
}
# The linear layers of a block: a release's name, and mlx-lm's.
LINEAR_LAYERS = {name: known for name, (known, axis) in _LAYER.items() if axis is not None}

_TOP: dict[str, tuple[str, int | None]] = {
    "tok_embeddings": ("model.embed_tokens", 1),
    "norm": ("model.norm", None),
    "output": ("lm_head", 0),
}
_LAYER_NAME = re.compile(r"layers\.(\d+)\.(.+)\.weight")


def mlx_name(name: str) -> str:
    """Return mlx-lm's name of a tensor that a llama network has; KeyError for others."""
    if match := _LAYER_NAME.fullmatch(name):
        return f"model.layers.{match[1]}.{_LAYER[match[2]][0]}.weight"
    return f"{_TOP[name.removesuffix('.weight')][0]}.weight"


def split_axis(name: str) -> int | None:
    """Return the axis along which a tensor is split over files, None where all have all of it.

    Embeddings are split by columns, as in Llama 1 and 2; KeyError for unknown names.
    """
    if match := _LAYER_NAME.fullmatch(name):
        return _LAYER[match[2]][1]
    return _TOP[name.removesuffix(".weight")][1]
