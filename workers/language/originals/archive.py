"""PyTorch checkpoints (``torch.save`` since 1.6: a zip archive), read without PyTorch.

The rule this module protects: opening a checkpoint costs its index alone. Tensors are views of the
mapped file, whose pages the system reads when they are used and drops when it needs the memory;
that works because torch stores its records uncompressed.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED
from workers.language.originals.pickles import Storage, TensorPlace, read_tensor_places

# Numpy has no bfloat16; its bits are given as uint16.
_NUMPY: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
}
_INDEX = "data.pkl"
# The fixed part of a local file header (APPNOTE 4.3.7): the lengths of name and extra are its last.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MARK = b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class TorchArchive:
    """An opened checkpoint: its tensors by name, and where each storage starts in the file.

    ``starts``: bytes from the start of the file, by the storage's key.
    """

    path: Path
    tensors: Mapping[str, TensorPlace]
    starts: Mapping[str, int]
    data: mmap.mmap

    def view(self, name: str) -> np.ndarray:
        """Return a read-only view of a tensor; bfloat16 as uint16."""
        place = self.tensors[name]
        dtype = _NUMPY[place.storage.dtype]
        flat = np.frombuffer(
            self.data,
            dtype,
            count=place.reach,
            offset=self.starts[place.storage.key] + place.offset * dtype.itemsize,
        )
        strides = [stride * dtype.itemsize for stride in place.strides]
        return np.lib.stride_tricks.as_strided(flat, place.shape, strides, writeable=False)


def open_archive(path: Path) -> TorchArchive:
    """Open a checkpoint and check that all its tensors lie inside the file.

    Raises:
        ModelError: it is no such archive, is truncated, compressed or big-endian, or its index
            names what no tensor needs.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with zipfile.ZipFile(path) as archive:
            return _opened(path, archive, data)
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise _no_archive(path, error) from None


def _opened(path: Path, archive: zipfile.ZipFile, data: mmap.mmap) -> TorchArchive:
    root = _root(archive)
    _check_byte_order(path, archive, root)
    tensors = read_tensor_places(path.name, archive.read(str(root / _INDEX)))
    records = {record.filename: record for record in archive.infolist()}
    starts: dict[str, int] = {}
    for name, place in tensors.items():
        record = records.get(str(root / "data" / place.storage.key))
        if record is None:
            raise zipfile.BadZipFile(f"the numbers of {name} are not in it")
        if place.storage.key not in starts:
            starts[place.storage.key] = _start(path, record, place.storage, data)
    return TorchArchive(path=path, tensors=tensors, starts=starts, data=data)


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
    order = archive.read(record).strip() if record in archive.namelist() else b"little"
    if order != b"little":
        raise ModelError(
            f"{path.name} has its numbers in the byte order {order.decode('ascii', 'replace')!r}",
            remedy="save the weights on a little-endian machine, as all current Macs and PCs are",
        )


def _start(path: Path, record: zipfile.ZipInfo, storage: Storage, data: mmap.mmap) -> int:
    """Return where the bytes of a record start in the file, having checked that all are there."""
    if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
        raise ModelError(
            f"{path.name} was packed again: {record.filename} in it is compressed or encrypted",
            remedy="unpack and save it with torch.save, which stores tensors as they are",
        )
    needed = storage.elements * _NUMPY[storage.dtype].itemsize
    if record.file_size < needed:
        raise zipfile.BadZipFile(
            f"{record.filename} has {record.file_size} of the {needed} bytes that its tensors take"
        )
    header = data[record.header_offset : record.header_offset + _LOCAL_HEADER.size]
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MARK):
        raise zipfile.BadZipFile(f"{record.filename} is not where its directory says")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    start = int(record.header_offset + _LOCAL_HEADER.size + name + extra)
    if start + needed > len(data):
        raise zipfile.BadZipFile(f"{record.filename} extends past the end of the file")
    return start


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
