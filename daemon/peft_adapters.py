"""Adapters as PEFT saves them: their settings and tensors in mlx-lm's form.

The rule this module protects: an adapter is used exactly or refused. A setting that changes what
the adapter computes, and that mlx-lm's layers do not know, is named. Imports no MLX.

PEFT computes ``(alpha / rank) * B A x`` (Hu et al. 2021, arXiv:2106.09685, section 4.1), with
``use_rslora`` ``(alpha / sqrt(rank)) * B A x`` (Kalajdzievski 2023, arXiv:2312.03732), with
``A`` of (rank, inputs) and ``B`` of (outputs, rank). mlx-lm computes ``scale * (x a) b``: both are
transposed here. DoRA's magnitudes (Liu et al. 2024, arXiv:2402.09353) are one number an output in
both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from daemon.adapter_config import AdapterConfig, rank, refused, scale, text
from daemon.errors import ModelError

_NAME = re.compile(
    r"base_model\.model\.(?P<path>.+)\.lora_(?P<part>A|B|magnitude_vector)(\.weight)?"
)
_PARTS = {"A": "lora_a", "B": "lora_b", "magnitude_vector": "m"}
_IN_BLOCK = re.compile(r".*?\.(?:layers|h|blocks)\.\d+\.(?P<key>.+)")

# Settings that change what is computed, and the values of them that do not.
_PLAIN: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "fan_in_fan_out": (None, False),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "modules_to_save": (None, []),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
}

_REMEDY = "merge the adapter with PEFT (merge_and_unload) and use the merged model"


def is_peft(data: Mapping[str, Any]) -> bool:
    """Say whether an ``adapter_config.json`` is PEFT's."""
    return "peft_type" in data


def parse_peft_config(data: Mapping[str, Any], names: Iterable[str]) -> AdapterConfig:
    """Return PEFT's settings as mlx-lm's; ``names`` are those of the adapter's tensors.

    Which layers are adapted is read from the tensors: PEFT's own setting may be a pattern.

    Raises:
        ModelError: a setting is out of bounds or is none that mlx-lm's layers have, or a tensor is
            none of a linear layer's adapter.
    """
    for name, plain in _PLAIN.items():
        if data.get(name) not in plain:
            shown = ", ".join(repr(value) for value in plain if value is not None)
            raise ModelError(
                f"the PEFT adapter has {name} = {data.get(name)!r}; it can be used with {shown}",
                remedy=_REMEDY,
            )
    size = rank(data.get("r"), "r")
    alpha = scale(data.get("lora_alpha"), "lora_alpha")
    return AdapterConfig(
        kind="dora" if _flag(data, "use_dora") else "lora",
        num_layers=-1,
        rank=size,
        scale=alpha / (math.sqrt(size) if _flag(data, "use_rslora") else size),
        keys=tuple(sorted({_key(name) for name in names})),
        model=text(data.get("base_model_name_or_path")),
    )


def mlx_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return name and shape of an adapter's tensors as mlx-lm has them.

    Raises:
        ModelError: a tensor is none of a linear layer's adapter, or a layer's tensors are not
            complete.
    """
    found = {mlx_name(name): shape[::-1] for name, shape in shapes.items()}
    for name in found:
        path, _, leaf = name.rpartition(".")
        other = {"lora_a": "lora_b", "lora_b": "lora_a", "m": "lora_a"}[leaf]
        if f"{path}.{other}" not in found:
            raise ModelError(
                f"the PEFT adapter has {name}, but no {path}.{other}",
                remedy="use the whole file that PEFT saved",
            )
    return found


def mlx_name(name: str) -> str:
    """Return what mlx-lm calls a tensor of PEFT's, whose axes it has in the other order."""
    match = _match(name)
    return f"{match['path']}.{_PARTS[match['part']]}"


def _key(name: str) -> str:
    """Return the path of a tensor's layer inside its block of the network."""
    path = str(_match(name)["path"])
    inside = _IN_BLOCK.fullmatch(path)
    if inside is None:
        raise ModelError(
            f"the PEFT adapter changes {path}, which is in no block of the network", remedy=_REMEDY
        )
    return str(inside["key"])


def _match(name: str) -> re.Match[str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ModelError(
            f"the PEFT adapter has the tensor {name}, which is none of a linear layer's",
            remedy=_REMEDY,
        )
    return match


def _flag(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name, False)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise refused(name, value, "true or false")
