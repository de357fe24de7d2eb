"""The tensors of PyTorch checkpoints (``torch.save`` since 1.6), read without PyTorch.

The rule this module protects: opening a checkpoint costs its index alone (``daemon.torch_header``),
and reading a tensor the tensor alone; that works because torch stores its records uncompressed.
Imports no MLX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.regular_files import open_regular, unreadable
from daemon.safetensors_header import TensorInfo
from daemon.torch_header import TorchIndex, read_torch_index
from daemon.torch_pickle import TensorPlace
from workers.language.zip_records import damage_of, read_array

# Numpy has no bfloat16; its bits are given as uint16.
_NUMPY: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
}


@dataclass(frozen=True, kw_only=True)
class TorchArchive:
    """An opened checkpoint."""

    path: Path
    index: TorchIndex

    @property
    def tensors(self) -> Mapping[str, TensorPlace]:
        """Where its tensors lie, by name."""
        return self.index.tensors

    @property
    def infos(self) -> dict[str, TensorInfo]:
        """What its tensors are, by name."""
        return {info.name: info for info in self.index.infos()}

    def read(self, name: str) -> np.ndarray:
        """Return a tensor's numbers in an array of their own; bfloat16 as uint16.

        Raises:
            ModelError: the file is shorter than it was when it was opened.
        """
        place = self.tensors[name]
        dtype = _NUMPY[place.storage.dtype]
        with (
            damage_of(f"{self.path.name} is not a complete PyTorch checkpoint"),
            open_regular(self.path, buffering=0) as file,
        ):
            file.seek(self.index.info(name).offset)
            flat = read_array(file, place.reach, dtype)
        strides = [stride * dtype.itemsize for stride in place.strides]
        return np.lib.stride_tricks.as_strided(flat, place.shape, strides, writeable=False)


def open_archive(path: Path) -> TorchArchive:
    """Open a checkpoint and check that all its tensors lie inside the file.

    Raises:
        ModelError: it is no such archive, is truncated, compressed or big-endian, or its index
            names what no tensor needs.
    """
    try:
        return TorchArchive(path=path, index=read_torch_index(path))
    except OSError as error:
        raise unreadable(path.name, error) from None
