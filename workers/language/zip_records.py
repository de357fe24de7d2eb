"""Records in zip archives of weights: their numbers, and what tells two archives apart.

The rule this module protects: a record is read from its place in the file into memory made for it,
and nothing of the file stays behind. A mapped file would: its pages count as the process's own
until the system takes them back. Imports no MLX.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED
from daemon.zip_archives import MOST_AT_ONCE, ZIP_ERRORS, open_zip, record_start

_SAMPLE = 256


@contextmanager
def damage_of(what: str) -> Iterator[None]:
    """Raise what is wrong with an archive's numbers as ``ModelError``: ``what``, and the reason.

    Memory that is lacking for them is no damage.
    """
    try:
        yield
    except MemoryError:
        raise
    except (OSError, *ZIP_ERRORS) as error:
        raise ModelError(f"{what}: {error}", remedy=DAMAGED) from None


def read_array(file: IO[bytes], count: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the next ``count`` numbers of a file or an opened record, (count,).

    Raises:
        EOFError: it has fewer.
    """
    array = np.empty(count, dtype)
    left = array.view(np.uint8).data
    while left:
        found = file.readinto(left[:MOST_AT_ONCE])  # type: ignore[attr-defined]
        if not found:
            raise EOFError("it ends before its last tensor")
        left = left[found:]
    return array


def identity(path: Path) -> Iterator[bytes]:
    """Yield the bytes that tell an archive from others: checksums, and a sample of each record.

    Sampled are the 256 bytes in the middle of a record as it is stored, for the sake of writers
    that leave the checksums out.
    """
    yield str(path.stat().st_size).encode()
    with damage_of(f"{path.name} is not a complete archive"), open_zip(path) as (archive, file):
        for record in archive.infolist():
            yield f"{record.filename} {record.file_size} {record.CRC}".encode()
            size = record.compress_size
            middle = record_start(file, record) + max(0, size - _SAMPLE) // 2
            yield os.pread(file.fileno(), min(_SAMPLE, size), middle)
