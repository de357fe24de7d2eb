"""A release's weights in mlx-lm's llama, which is Mistral's network too.

The rule this module protects: the rotary rows of q and k are put from pairs, as the publishers'
code rotates them, into halves, as mlx-lm's does, exactly once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from workers.language.gguf import build_llama, split_halves
from workers.language.originals.names import EMBEDDINGS, FIRST_GATE, mlx_name
from workers.language.originals.params import Params
from workers.language.originals.release import Release, open_release
from workers.language.originals.shards import Shape


def load_release(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Load a folder with ``params.json`` and ``consolidated.*``, in the data types it is stored in.

    Takes the memory of the network and of one tensor more.

    Returns:
        The network, and its configuration in mlx-lm's terms.

    Raises:
        ModelError: a file is missing or damaged, or the weights contradict ``params.json``.
    """
    release = open_release(folder)
    shapes = release.check()
    weights = {mlx_name(name): _weight(release, name) for name in shapes}
    config = _config(release.params, shapes, tied=release.is_tied)
    return build_llama(config, weights), config


def _weight(release: Release, name: str) -> mx.array:
    """Return a tensor as mlx-lm's llama has it, in memory."""
    array = release.read(name)
    if name.endswith(".attention.wq.weight"):
        array = split_halves(array, release.params.heads)
    elif name.endswith(".attention.wk.weight"):
        array = split_halves(array, release.params.kv_heads)
    mx.eval(array)
    return array


def _config(params: Params, shapes: dict[str, Shape], *, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": params.dim,
        "num_hidden_layers": params.layers,
        "intermediate_size": shapes[FIRST_GATE][0],
        "num_attention_heads": params.heads,
        "num_key_value_heads": params.kv_heads,
        "head_dim": params.head_dim,
        "rms_norm_eps": params.norm_eps,
        "rope_theta": params.rope_theta,
        "vocab_size": shapes[EMBEDDINGS][0],
        "tie_word_embeddings": tied,
    }
