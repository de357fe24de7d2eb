"""The weights files of a release and of an npz model, all kinds alike.

The rule this module protects: opening one reads its header alone; a tensor is read when it is asked
for, once, and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from daemon.errors import ModelError
from workers.language.headers import TensorInfo, read_safetensors_header
from workers.language.npz_archive import NpzArchive, open_npz
from workers.language.originals.archive import TorchArchive, open_archive

# The types that are read, by safetensors' names.
DTYPES: dict[str, mx.Dtype] = {
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F32": mx.float32,
    "U32": mx.uint32,
}


class Shard(Protocol):
    """One opened weights file."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What is in it, by name; types are among ``DTYPES``."""
        ...

    def read(self, name: str) -> mx.array:
        """Return a tensor in the type that it is stored in."""
        ...


@dataclass(frozen=True, kw_only=True)
class PthShard:
    """A ``consolidated.NN.pth``."""

    tensors: Mapping[str, TensorInfo]
    archive: TorchArchive

    def read(self, name: str) -> mx.array:
        """Return a copy of a tensor."""
        return _mlx_array(self.archive.read(name), self.tensors[name].dtype)


@dataclass(frozen=True, kw_only=True)
class NpzShard:
    """A ``weights.npz`` or ``weights.NN.npz``."""

    tensors: Mapping[str, TensorInfo]
    archive: NpzArchive

    def read(self, name: str) -> mx.array:
        """Return a copy of a tensor."""
        return _mlx_array(self.archive.read(name), self.tensors[name].dtype)


@dataclass(frozen=True, kw_only=True)
class SafetensorsShard:
    """A ``consolidated*.safetensors``; MLX reads each of ``arrays`` when it is evaluated."""

    tensors: Mapping[str, TensorInfo]
    arrays: dict[str, mx.array]

    def read(self, name: str) -> mx.array:
        """Return a tensor, not read yet; it can be asked for once."""
        return self.arrays.pop(name)


def open_shard(path: Path) -> Shard:
    """Open one weights file and check its header.

    Raises:
        ModelError: it is damaged, or holds what is no tensor of a type that is read.
    """
    if path.suffix == ".pth":
        torch = open_archive(path)
        return PthShard(tensors=torch.infos, archive=torch)
    if path.suffix == ".npz":
        npz = open_npz(path)
        return NpzShard(tensors=npz.infos, archive=npz)
    found = {tensor.name: tensor for tensor in read_safetensors_header(path).tensors}
    for tensor in found.values():
        if tensor.dtype not in DTYPES:
            raise ModelError(
                f"{tensor.name} of {path.name} is of the type {tensor.dtype}, which is not read",
                remedy="use weights in float16, bfloat16 or float32",
            )
    loaded: Any = mx.load(str(path))
    return SafetensorsShard(tensors=found, arrays=loaded)


def _mlx_array(array: np.ndarray, dtype: str) -> mx.array:
    """Return a copy; bfloat16 comes from its bits, for which numpy has no type."""
    copy = mx.array(np.asarray(array, order="C"))
    return copy.view(mx.bfloat16) if dtype == "BF16" else copy
