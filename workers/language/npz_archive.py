"""NumPy's archives of arrays (``.npz``), read one array at a time.

The rule this module protects: opening an archive costs its headers alone, whatever it claims to
hold. An array that is stored as it is comes from its place in the file, a packed one is unpacked
into memory of the size that its header declares, and not a byte more. Nothing that Python would
have to run is read. Imports no MLX.

Format: numpy.lib.format. Numpy has no bfloat16: MLX writes it as two bytes without a meaning, V2.
Checksums are looked at only where an array is unpacked.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED, TensorInfo
from workers.language.zip_records import read_array, record_start

# How the array is read, bfloat16 as its bits; safetensors' name of the type.
_TYPES: dict[str, tuple[np.dtype[Any], str]] = {
    "<f2": (np.dtype("<f2"), "F16"),
    "<f4": (np.dtype("<f4"), "F32"),
    "<u4": (np.dtype("<u4"), "U32"),
    "|V2": (np.dtype("<u2"), "BF16"),
}
_HEADER = 2**16  # bytes of an entry in which its header has to be
_SUFFIX = ".npy"
_MOST_TIMES = 64  # how much an archive may grow when it is unpacked: weights hardly shrink
_ANY_SIZE = 2**28  # bytes; a smaller one may be of zeros


@dataclass(frozen=True, kw_only=True)
class NpzArray:
    """One array: its type, shape and place, and how it lies there.

    ``info.offset``: of its numbers, from the start of the file or, packed, of the unpacked entry.
    """

    info: TensorInfo
    entry: str
    is_packed: bool
    by_columns: bool


@dataclass(frozen=True, kw_only=True)
class NpzArchive:
    """An opened archive: its arrays by name."""

    path: Path
    arrays: Mapping[str, NpzArray]

    def read(self, name: str) -> np.ndarray:
        """Return a new array with the numbers of ``name``; bfloat16 as uint16.

        Raises:
            ModelError: the file is damaged, or has changed since it was opened.
        """
        array = self.arrays[name]
        with _archive_errors(self.path):
            flat = self._numbers(array)
        shape = array.info.shape
        return flat.reshape(shape[::-1]).T if array.by_columns else flat.reshape(shape)

    def _numbers(self, array: NpzArray) -> np.ndarray:
        kind, count = _KINDS[array.info.dtype], array.info.elements
        if not array.is_packed:
            with self.path.open("rb", buffering=0) as file:
                file.seek(array.info.offset)
                return read_array(file, count, kind)
        with zipfile.ZipFile(self.path) as archive, archive.open(array.entry) as entry:
            entry.read(array.info.offset)
            numbers = read_array(entry, count, kind)
            entry.read(1)  # the checksum is looked at where the entry ends
            return numbers


_KINDS = {name: kind for kind, name in _TYPES.values()}


def open_npz(path: Path) -> NpzArchive:
    """Open an archive and check what it declares.

    Raises:
        ModelError: it is damaged or unpacks to far more than weights do, or one of its arrays is
            not of float16, bfloat16, float32 or uint32.
    """
    with _archive_errors(path), zipfile.ZipFile(path) as archive:
        _check_size(path, archive)
        with path.open("rb") as file:
            found = [_array(path, archive, file, entry) for entry in archive.infolist()]
    arrays = {array.info.name: array for array in found}
    if len(arrays) != len(found):
        raise _damaged(path, "two of its arrays have one name")
    return NpzArchive(path=path, arrays=arrays)


def _check_size(path: Path, archive: zipfile.ZipFile) -> None:
    size = sum(entry.file_size for entry in archive.infolist())
    if size > max(_ANY_SIZE, _MOST_TIMES * path.stat().st_size):
        raise ModelError(
            f"{path.name} is refused: its {path.stat().st_size:,} bytes unpack to {size:,}, which "
            "weights do not",
            remedy="use the file that the conversion wrote",
        )


def _array(path: Path, archive: zipfile.ZipFile, file: Any, entry: zipfile.ZipInfo) -> NpzArray:
    """Read the header of one array, and check it against the entry's size."""
    name = entry.filename.removesuffix(_SUFFIX)
    shape, by_columns, kind, length = _header(archive, entry)
    if kind.hasobject:
        raise ModelError(
            f"{path.name} is refused: {name} holds Python objects, and to read one is to run it",
            remedy="trust no copy of this file; weights are arrays of numbers",
        )
    known = _TYPES.get(kind.str)
    if known is None:
        raise ModelError(
            f"{name} of {path.name} is of the type {kind}, which is not read",
            remedy="save the weights in float16, bfloat16 or float32",
        )
    declared = math.prod(shape) * kind.itemsize
    if length + declared != entry.file_size:
        raise ValueError(f"{name} has {entry.file_size - length} of {declared} bytes")
    packed = entry.compress_type != zipfile.ZIP_STORED
    offset = length if packed else record_start(file, entry) + length
    info = TensorInfo(name=name, dtype=known[1], shape=shape, offset=offset, bytes=declared)
    return NpzArray(info=info, entry=entry.filename, is_packed=packed, by_columns=by_columns)


def _header(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, whether columns come first, type, and the header's own length in bytes."""
    with archive.open(entry) as opened:
        head = io.BytesIO(opened.read(_HEADER))
    version = np.lib.format.read_magic(head)
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"{entry.filename} is of an unknown version of NumPy's format")
    shape, by_columns, kind = readers[version](head)
    if any(size < 0 for size in shape):
        raise ValueError(f"{entry.filename} has the shape {shape}")
    return shape, by_columns, kind, head.tell()


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    """Raise what zipfile, zlib and numpy say about a damaged file as ``ModelError``."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path.name} is not a complete npz archive: {reason}", remedy=DAMAGED)
