"""NumPy's archives of arrays (``.npz``), read one array at a time.

The rule this module protects: opening an archive costs its headers alone, whatever it claims to
hold (``daemon.npz_header``). An array that is stored as it is comes from its place in the file, a
packed one is unpacked into memory of the size that its header declares, and not a byte more.
Imports no MLX.

Checksums are looked at only where an array is unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.npz_header import NpzArray, read_npz_arrays
from daemon.regular_files import open_regular, unreadable
from daemon.safetensors_header import TensorInfo
from daemon.zip_archives import open_zip
from workers.language.zip_records import damage_of, read_array

# How the numbers are read, bfloat16 as its bits.
_KINDS: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True, kw_only=True)
class NpzArchive:
    """An opened archive: its arrays by name."""

    path: Path
    arrays: Mapping[str, NpzArray]

    @property
    def infos(self) -> dict[str, TensorInfo]:
        """What its arrays are, by name."""
        return {name: array.info for name, array in self.arrays.items()}

    def read(self, name: str) -> np.ndarray:
        """Return a new array with the numbers of ``name``; bfloat16 as uint16.

        Raises:
            ModelError: the file is damaged, or has changed since it was opened.
        """
        array = self.arrays[name]
        with damage_of(f"{self.path.name} is not a complete archive of arrays"):
            flat = self._unpacked(array) if array.is_packed else self._stored(array)
        shape = array.info.shape
        return flat.reshape(shape[::-1]).T if array.by_columns else flat.reshape(shape)

    def _stored(self, array: NpzArray) -> np.ndarray:
        with open_regular(self.path, buffering=0) as file:
            file.seek(array.info.offset)
            return read_array(file, array.info.elements, _KINDS[array.info.dtype])

    def _unpacked(self, array: NpzArray) -> np.ndarray:
        with open_zip(self.path) as (archive, _), archive.open(array.entry) as entry:
            entry.read(array.header)
            numbers = read_array(entry, array.info.elements, _KINDS[array.info.dtype])
            entry.read(1)  # the checksum is looked at where the entry ends
            return numbers


def open_npz(path: Path) -> NpzArchive:
    """Open an archive and check what it declares.

    Raises:
        ModelError: it is damaged or unpacks to far more than weights do, or one of its arrays is
            not of float16, bfloat16, float32 or uint32.
    """
    try:
        arrays = read_npz_arrays(path)
    except OSError as error:
        raise unreadable(path.name, error) from None
    return NpzArchive(path=path, arrays={array.info.name: array for array in arrays})
