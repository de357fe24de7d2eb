"""Adapters in NumPy's format: ``adapters.npz`` of MLX's first LoRA examples and of early mlx-lm.

The rule this module protects: an array is read only from a file whose headers were checked
(``daemon.adapter_files``), and never as pickle.

Meta rotates pairs of neighbouring outputs of q and k where mlx-lm rotates halves, so the ``lora_b``
of an adapter of 2023 is reordered. Files with mlx-lm's own names came with an
``adapter_config.json``, which alone knows their scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from daemon.first_adapters import first_name
from workers.language.gguf import split_halves
from workers.language.npz_archive import open_npz

_ROTATED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


def npz_arrays(path: Path) -> dict[str, mx.array]:
    """Read every array; the file has passed ``daemon.adapter_files.read_adapter``.

    Raises:
        ModelError: the file is damaged.
    """
    archive = open_npz(path)
    return {name: mx.array(np.asarray(archive.read(name), order="C")) for name in archive.arrays}


def first_arrays(arrays: Mapping[str, mx.array], config: Mapping[str, Any]) -> dict[str, mx.array]:
    """Return an adapter's tensors of 2023 as mlx-lm has them; ``config``: the model's."""
    found = {first_name(name): array for name, array in arrays.items()}
    for name, array in found.items():
        _, _, layer = name.removesuffix(".lora_b").rpartition(".")
        if name.endswith(".lora_b") and layer in _ROTATED:
            heads = config.get(_ROTATED[layer]) or config["num_attention_heads"]
            found[name] = split_halves(array.T, heads).T
    return found
