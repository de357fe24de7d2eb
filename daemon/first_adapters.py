"""Adapters as MLX's first LoRA example saved them in 2023: ``adapters.npz`` without settings.

The rule this module protects: such a file says little of itself, so what it leaves out is known, or
it is refused. Imports no MLX.

Names and layouts were those of Meta's releases, ``layers.0.attention.wq.lora_a``, and the scale was
2 (ml-explore/mlx-examples, folder ``lora``, of December 2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from daemon.adapter_config import AdapterConfig, rank
from daemon.errors import ModelError
from daemon.release_names import LINEAR_LAYERS

_SCALE = 2.0
_NAME = re.compile(r"layers\.(?P<block>\d+)\.(?P<layer>[a-z_]+\.\w+)\.(?P<leaf>lora_[ab])")
_REMEDY = "give the adapters.npz that the training wrote"


def is_first_form(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Say whether the names are those of 2023."""
    return bool(shapes) and all(_NAME.fullmatch(name) for name in shapes)


def first_config(shapes: Mapping[str, tuple[int, ...]]) -> AdapterConfig:
    """Return the settings of an adapter of 2023, which stand in no file.

    Raises:
        ModelError: a tensor is no matrix, or the layers are of several ranks, or unknown.
    """
    for name, shape in shapes.items():
        if len(shape) != 2:
            raise ModelError(
                f"the adapter's {name} has {len(shape)} axes; a matrix has two", remedy=_REMEDY
            )
    ranks = {shape[-1] if name.endswith("lora_a") else shape[0] for name, shape in shapes.items()}
    if len(ranks) != 1:
        raise ModelError(
            f"the adapter has layers of several ranks: {sorted(ranks)}", remedy=_REMEDY
        )
    keys = {first_name(name).split(".", 3)[3].rpartition(".")[0] for name in shapes}
    return AdapterConfig(
        kind="lora",
        num_layers=-1,
        rank=rank(ranks.pop(), "rank"),
        scale=_SCALE,
        keys=tuple(sorted(keys)),
        model=None,
    )


def first_name(name: str) -> str:
    """Return mlx-lm's name of a tensor of 2023.

    Raises:
        ModelError: it is in a layer that Llama and Mistral do not have.
    """
    match = _NAME.fullmatch(name)
    layer = LINEAR_LAYERS.get(match["layer"]) if match else None
    if match is None or layer is None:
        raise ModelError(
            f"the adapter has the tensor {name}; known are those of {', '.join(LINEAR_LAYERS)}",
            remedy=_REMEDY,
        )
    return f"model.layers.{match['block']}.{layer}.{match['leaf']}"
