"""Records in zip archives of weights, where they lie and what tells two archives apart.

The rule this module protects: a record is read from its place in the file into memory made for it,
and nothing of the file stays behind. A mapped file would: its pages count as the process's own
until the system takes them back. Imports no MLX.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

# The fixed part of a local file header (APPNOTE 4.3.7): the lengths of name and extra are its last.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MARK = b"PK\x03\x04"

_PIECE = 2**24  # bytes read at once; macOS refuses 2 GiB, and a packed record is unpacked apart
_SAMPLE = 256


def record_start(file: IO[bytes], record: zipfile.ZipInfo) -> int:
    """Return where the bytes of a record start in its archive, all of them being there.

    Raises:
        BadZipFile: the record is elsewhere, or the file ends before it does.
    """
    header = os.pread(file.fileno(), _LOCAL_HEADER.size, record.header_offset)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MARK):
        raise zipfile.BadZipFile(f"{record.filename} is not where its directory says")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    start = int(record.header_offset + _LOCAL_HEADER.size + name + extra)
    if start + record.compress_size > os.fstat(file.fileno()).st_size:
        raise zipfile.BadZipFile(f"{record.filename} extends past the end of the file")
    return start


def read_array(file: IO[bytes], count: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the next ``count`` numbers of a file or an opened record, (count,).

    Raises:
        EOFError: it has fewer.
    """
    array = np.empty(count, dtype)
    left = array.view(np.uint8).data
    while left:
        found = file.readinto(left[:_PIECE])  # type: ignore[attr-defined]
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
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for record in archive.infolist():
            yield f"{record.filename} {record.file_size} {record.CRC}".encode()
            size = record.compress_size
            middle = record_start(file, record) + max(0, size - _SAMPLE) // 2
            yield os.pread(file.fileno(), min(_SAMPLE, size), middle)
