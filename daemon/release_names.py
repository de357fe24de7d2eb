"""The names of a release's tensors, and how Meta splits each over several files.

The rule this module protects: names are matched exactly. Imports no MLX.

Meta splits a network over processes: the rows of what goes into attention and the feed-forward
layer (axis 0), the columns of what comes out of them (axis 1). Norms are in every file. MLX's
examples of 2023 kept Meta's names in ``weights.npz``, and gave a quantised layer ``scales`` and
``biases`` besides its ``weight``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# mlx-lm's names of the tensors whose shapes settings may leave out.
EMBEDDINGS, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
FIRST_GATE = "model.layers.0.mlp.gate_proj.weight"

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
_LAYER_BACK = {known: name for name, (known, _) in _LAYER.items()}
_TOP_BACK = {known: name for name, (known, _) in _TOP.items()}
_NETWORK_NAME = re.compile(r"model\.layers\.(\d+)\.([\w.]+)")
_LAYER_NAME = re.compile(r"layers\.(\d+)\.([\w.]+)\.(weight|scales|biases)")
_TOP_NAME = re.compile(r"(\w+)\.(weight|scales|biases)")
# Rotary frequencies, which follow from the settings: Meta's name, and the end of Hugging Face's.
_FREQUENCIES, _INVERSE = "rope.freqs", "rotary_emb.inv_freq"


def follows_from_settings(name: str) -> bool:
    """Say whether a tensor holds what the settings say already, and is left out."""
    return name == _FREQUENCIES or name.endswith(_INVERSE)


def are_publishers_names(names: Iterable[str]) -> bool:
    """Say whether tensors are named as in Meta's and Mistral's releases, not as in mlx-lm."""
    return any(mlx_name(name) != name for name in names)


def mlx_name(name: str) -> str:
    """Return mlx-lm's name of a release's tensor; ``name`` itself if llama has no such tensor."""
    found = _found(name)
    return f"{found[0]}.{name.rpartition('.')[2]}" if found else name


def publishers_name(name: str) -> str:
    """Return the name in a release of mlx-lm's tensor ``name``; ``name`` if it has none."""
    stem, _, leaf = name.rpartition(".")
    if stem in _TOP_BACK:
        return f"{_TOP_BACK[stem]}.{leaf}"
    match = _NETWORK_NAME.fullmatch(stem)
    layer = _LAYER_BACK.get(match[2]) if match else None
    return f"layers.{match[1]}.{layer}.{leaf}" if match and layer else name


def split_axis(name: str) -> int | None:
    """Return the axis along which a release's tensor is split, None where all files have all of it.

    Embeddings are split by columns, as in Llama 1 and 2. Unknown tensors are not split.
    """
    found = _found(name)
    return found[1] if found else None


def _found(name: str) -> tuple[str, int | None] | None:
    if match := _LAYER_NAME.fullmatch(name):
        layer = _LAYER.get(match[2])
        return layer and (f"model.layers.{match[1]}.{layer[0]}", layer[1])
    match = _TOP_NAME.fullmatch(name)
    return _TOP.get(match[1]) if match else None
