"""PyTorch checkpoints (``torch.save`` since 1.6: a zip archive), read without PyTorch.

The rule this module protects: opening a checkpoint costs its index alone, and reading a tensor the
tensor alone; that works because torch stores its records uncompressed. Imports no MLX.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED, TensorInfo
from daemon.torch_pickle import Storage, TensorPlace, read_tensor_places
from workers.language.zip_records import read_array, record_start

# Numpy has no bfloat16; its bits are given as uint16.
_NUMPY: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
}
_INDEX = "data.pkl"
_MOST_INDEX = 2**28  # bytes; those of real checkpoints have under one MiB


@dataclass(frozen=True, kw_only=True)
class TorchArchive:
    """An opened checkpoint: its tensors by name, and where each storage starts in the file.

    ``starts``: bytes from the start of the file, by the storage's key.
    """

    path: Path
    tensors: Mapping[str, TensorPlace]
    starts: Mapping[str, int]

    def info(self, name: str) -> TensorInfo:
        """Return a tensor's type, shape, place in the file, and size in memory."""
        place, size = self.tensors[name], self._dtype(name).itemsize
        return TensorInfo(
            name=name,
            dtype=place.storage.dtype,
            shape=place.shape,
            offset=self.starts[place.storage.key] + place.offset * size,
            bytes=math.prod(place.shape) * size,
        )

    def read(self, name: str) -> np.ndarray:
        """Return a tensor's numbers in an array of their own; bfloat16 as uint16.

        Raises:
            ModelError: the file is shorter than it was when it was opened.
        """
        place, dtype = self.tensors[name], self._dtype(name)
        with _archive_errors(self.path), self.path.open("rb", buffering=0) as file:
            file.seek(self.info(name).offset)
            flat = read_array(file, place.reach, dtype)
        strides = [stride * dtype.itemsize for stride in place.strides]
        return np.lib.stride_tricks.as_strided(flat, place.shape, strides, writeable=False)

    def _dtype(self, name: str) -> np.dtype[Any]:
        return _NUMPY[self.tensors[name].storage.dtype]


def open_archive(path: Path) -> TorchArchive:
    """Open a checkpoint and check that all its tensors lie inside the file.

    Raises:
        ModelError: it is no such archive, is truncated, compressed or big-endian, or its index
            names what no tensor needs.
    """
    with _archive_errors(path), path.open("rb") as file, zipfile.ZipFile(path) as archive:
        return _opened(path, archive, file)


def _opened(path: Path, archive: zipfile.ZipFile, file: IO[bytes]) -> TorchArchive:
    root = _root(archive)
    _check_byte_order(path, archive, root)
    tensors = read_tensor_places(path.name, _index(archive, root))
    records = {record.filename: record for record in archive.infolist()}
    starts: dict[str, int] = {}
    for name, place in tensors.items():
        record = records.get(str(root / "data" / place.storage.key))
        if record is None:
            raise zipfile.BadZipFile(f"the numbers of {name} are not in it")
        if place.storage.key not in starts:
            starts[place.storage.key] = _start(path, record, place.storage, file)
    return TorchArchive(path=path, tensors=tensors, starts=starts)


def _index(archive: zipfile.ZipFile, root: PurePosixPath) -> bytes:
    record = archive.getinfo(str(root / _INDEX))
    if record.file_size > _MOST_INDEX:
        raise zipfile.BadZipFile(f"its {_INDEX} has {record.file_size} bytes")
    return archive.read(record)


def _root(archive: zipfile.ZipFile) -> PurePosixPath:
    """Return the folder in the archive that holds the index; torch names it after the file."""
    found = [PurePosixPath(name) for name in archive.namelist()]
    roots = [name.parent for name in found if name.name == _INDEX and len(name.parts) == 2]
    if len(roots) != 1:
        raise zipfile.BadZipFile(f"it has {len(roots)} {_INDEX}, and not one")
    return roots[0]


def _check_byte_order(path: Path, archive: zipfile.ZipFile, root: PurePosixPath) -> None:
    """Refuse big-endian numbers; files from before torch 2.1 do not say, and are little-endian."""
    record = str(root / "byteorder")
    order = b"little"
    if record in archive.namelist():
        with archive.open(record) as opened:
            order = opened.read(16).strip()
    if order != b"little":
        raise ModelError(
            f"{path.name} has its numbers in the byte order {order.decode('ascii', 'replace')!r}",
            remedy="save the weights on a little-endian machine, as all current Macs and PCs are",
        )


def _start(path: Path, record: zipfile.ZipInfo, storage: Storage, file: IO[bytes]) -> int:
    """Return where the bytes of a record start in the file, having checked that all are there."""
    if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
        raise ModelError(
            f"{path.name} was packed again: {record.filename} in it is compressed or encrypted",
            remedy="unpack and save it with torch.save, which stores tensors as they are",
        )
    needed = storage.elements * _NUMPY[storage.dtype].itemsize
    if min(record.file_size, record.compress_size) < needed:
        raise zipfile.BadZipFile(
            f"{record.filename} has {record.file_size} of the {needed} bytes that its tensors take"
        )
    return record_start(file, record)


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    """Raise what is wrong with a file as ``ModelError``."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise _no_archive(path, error) from None


def _no_archive(path: Path, error: Exception) -> ModelError:
    with path.open("rb") as file:
        started = file.read(2)
    if started[:1] == b"\x80":
        return ModelError(
            f"{path.name} is a checkpoint as PyTorch wrote them before version 1.6",
            remedy="load it with a current PyTorch and save it again with torch.save",
        )
    return ModelError(
        f"{path.name} is not a complete PyTorch checkpoint: {error}",
        remedy=DAMAGED,
    )
