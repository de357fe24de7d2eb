"""Adapters in NumPy's format: ``adapters.npz`` of MLX's first LoRA examples and of early mlx-lm.

The rule this module protects: such a file says little of itself, so what it leaves out is known, or
it is refused.

In 2023 names and layouts were those of Meta's releases, ``layers.0.attention.wq.lora_a``, and the
scale was 2 (ml-explore/mlx-examples, folder ``lora``, of December 2023). Meta rotates pairs of
neighbouring outputs of q and k where mlx-lm rotates halves, so their ``lora_b`` is reordered. Files
with mlx-lm's own names came with an ``adapter_config.json``, which alone knows their scale.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from daemon.errors import ModelError
from workers.language.adapter_config import AdapterConfig, rank
from workers.language.gguf import split_halves
from workers.language.originals.names import LINEAR_LAYERS

_FIRST_SCALE = 2.0
_FIRST = re.compile(r"layers\.(?P<block>\d+)\.(?P<layer>[a-z_]+\.\w+)\.(?P<leaf>lora_[ab])")
_ROTATED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}

_ZIP = b"PK\x03\x04"
_FLOATS = ("float16", "float32")
_MOST_BYTES = 4 * 2**30
_REMEDY = "give the adapters.npz that the training wrote"


def is_npz(path: Path) -> bool:
    """Say whether a file begins as NumPy's archives do."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every array, without reading the numbers.

    Raises:
        ModelError: the file is damaged, or holds something else than arrays of 16- or 32-bit
            floats, 4 GiB at most.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {
                entry.filename.removesuffix(".npy"): _array(archive, entry)
                for entry in archive.infolist()
            }
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise ModelError(f"the adapter cannot be read: {error}", remedy=_REMEDY) from None
    size = sum(math.prod(shape) * kind.itemsize for shape, kind in found.values())
    for name, (_, kind) in found.items():
        if kind.name not in _FLOATS:
            raise ModelError(
                f"the adapter's {name} is of the type {kind.name}, not one of {', '.join(_FLOATS)}",
                remedy=_REMEDY,
            )
    if size > _MOST_BYTES:
        raise ModelError(
            f"the adapter unpacks to {size} bytes; at most {_MOST_BYTES} are read", remedy=_REMEDY
        )
    return {name: shape for name, (shape, _) in found.items()}


def npz_arrays(path: Path) -> dict[str, mx.array]:
    """Read every array; the file has passed ``npz_shapes``."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: mx.array(archive[name]) for name in archive.files}


def is_first_form(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Say whether the names are those of 2023."""
    return bool(shapes) and all(_FIRST.fullmatch(name) for name in shapes)


def first_config(shapes: Mapping[str, tuple[int, ...]]) -> AdapterConfig:
    """Return the settings of an adapter of 2023, which stand in no file.

    Raises:
        ModelError: its layers are of several ranks, or unknown.
    """
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
        scale=_FIRST_SCALE,
        keys=tuple(sorted(keys)),
        model=None,
    )


def first_name(name: str) -> str:
    """Return mlx-lm's name of a tensor of 2023.

    Raises:
        ModelError: it is in a layer that Llama and Mistral do not have.
    """
    match = _FIRST.fullmatch(name)
    layer = LINEAR_LAYERS.get(match["layer"]) if match else None
    if match is None or layer is None:
        raise ModelError(
            f"the adapter has the tensor {name}; known are those of {', '.join(LINEAR_LAYERS)}",
            remedy=_REMEDY,
        )
    return f"model.layers.{match['block']}.{layer}.{match['leaf']}"


def first_arrays(arrays: Mapping[str, mx.array], config: Mapping[str, Any]) -> dict[str, mx.array]:
    """Return an adapter's tensors of 2023 as mlx-lm has them; ``config``: the model's."""
    found = {first_name(name): array for name, array in arrays.items()}
    for name, array in found.items():
        _, _, layer = name.removesuffix(".lora_b").rpartition(".")
        if name.endswith(".lora_b") and layer in _ROTATED:
            heads = config.get(_ROTATED[layer]) or config["num_attention_heads"]
            found[name] = split_halves(array.T, heads).T
    return found


def _array(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of one array from its header."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read: Any = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"{entry.filename} is of an unknown version of NumPy's format")
        shape, _, kind = read(file)
    return shape, kind
