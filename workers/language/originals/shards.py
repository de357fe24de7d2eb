"""The weights files of a release, of either kind.

The rule this module protects: opening one reads its header alone; a tensor is read from the mapped
file when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from daemon.errors import ModelError
from workers.language.headers import read_safetensors_header
from workers.language.originals.archive import TorchArchive, open_archive

_AGAIN = "download the missing file"
_PTH = re.compile(r"consolidated\.(\d+)\.pth")
_PART = re.compile(r"consolidated-(\d+)-of-(\d+)\.safetensors")
_DTYPES = frozenset({"F16", "BF16", "F32"})

Shape = tuple[int, ...]


class Shard(Protocol):
    """One opened weights file."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor in it."""
        ...

    def read(self, name: str) -> mx.array:
        """Return a tensor in the data type that it is stored in."""
        ...


@dataclass(frozen=True, kw_only=True)
class PthShard:
    """A ``consolidated.NN.pth``."""

    archive: TorchArchive

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor in it."""
        return {name: place.shape for name, place in self.archive.tensors.items()}

    def read(self, name: str) -> mx.array:
        """Return a copy of a tensor."""
        array = mx.array(np.asarray(self.archive.view(name), order="C"))
        is_bfloat16 = self.archive.tensors[name].storage.dtype == "BF16"
        return array.view(mx.bfloat16) if is_bfloat16 else array


@dataclass(frozen=True, kw_only=True)
class SafetensorsShard:
    """A ``consolidated*.safetensors``; MLX reads each of ``arrays`` when it is evaluated."""

    arrays: Mapping[str, mx.array]

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every tensor in it."""
        return {name: tuple(array.shape) for name, array in self.arrays.items()}

    def read(self, name: str) -> mx.array:
        """Return a tensor, not read yet."""
        return self.arrays[name]


def find_shards(folder: Path) -> tuple[Path, ...]:
    """Return the weights files of a release, in the order in which their tensors are joined.

    Safetensors are taken where both kinds are there.

    Raises:
        ModelError: there are none, or one of their numbers is missing.
    """
    single = folder / "consolidated.safetensors"
    if single.is_file():
        return (single,)
    return _parts(folder) or _numbered(folder)


def open_shard(path: Path) -> Shard:
    """Open one weights file and check its header.

    Raises:
        ModelError: it is damaged, or holds what is no float16, bfloat16 or float32 tensor.
    """
    if path.suffix == ".pth":
        return PthShard(archive=open_archive(path))
    for tensor in read_safetensors_header(path).tensors:
        if tensor.dtype not in _DTYPES:
            raise ModelError(
                f"{tensor.name} of {path.name} is of the type {tensor.dtype}, which is not read",
                remedy="use weights in float16, bfloat16 or float32",
            )
    loaded: Any = mx.load(str(path))
    return SafetensorsShard(arrays=loaded)


def _parts(folder: Path) -> tuple[Path, ...]:
    """Return ``consolidated-I-of-N.safetensors``, which Mistral's large models come in."""
    found = {path: _PART.fullmatch(path.name) for path in folder.glob("consolidated-*.safetensors")}
    named = {path: match for path, match in sorted(found.items()) if match}
    if not named:
        return ()
    declared = {match[2] for match in named.values()}
    for total in declared:
        for number in range(1, int(total) + 1):
            file = folder / f"consolidated-{number:0{len(total)}}-of-{total}.safetensors"
            if file not in named:
                raise _missing(folder, file.name)
    return tuple(named)


def _numbered(folder: Path) -> tuple[Path, ...]:
    """Return ``consolidated.00.pth`` and so on."""
    found = sorted(path for path in folder.glob("consolidated.*.pth") if _PTH.fullmatch(path.name))
    if not found:
        raise ModelError(
            f"{folder.name} has no weights: neither consolidated.00.pth nor "
            "consolidated.safetensors is in it",
            remedy="download the weights beside params.json",
        )
    for number, path in enumerate(found):
        expected = f"consolidated.{number:02}.pth"
        if path.name != expected:
            raise _missing(folder, expected)
    return tuple(found)


def _missing(folder: Path, name: str) -> ModelError:
    return ModelError(f"{folder.name} is incomplete: {name} is missing", remedy=_AGAIN)
