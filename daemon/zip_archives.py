"""Zip archives of weights: opened within bounds, and where in the file a record lies.

The rule this module protects: opening an archive costs no more than its directory, which is
bounded, and whatever zipfile and zlib say of a damaged one is in ``ZIP_ERRORS``. Methods of packing
that reserve memory as the file pleases (bzip2, LZMA) are not unpacked.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from daemon.regular_files import open_regular

# What a damaged or hostile archive can raise, but for OSError.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    MemoryError,
    RuntimeError,  # encrypted records; also NotImplementedError and RecursionError
)

# The fixed part of a local file header (APPNOTE 4.3.7): the lengths of name and extra are its last.
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MARK = b"PK\x03\x04"

MOST_AT_ONCE = 4 * 2**20  # bytes of a read; a directory of that size is of some 40,000 tensors
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextmanager
def open_zip(path: Path) -> Iterator[tuple[zipfile.ZipFile, IO[bytes]]]:
    """Open an archive; yields it, and the file that it lies in.

    Raises:
        OSError: it cannot be opened, or is no regular file.
        BadZipFile: it is no archive, its directory is too long, or a record is encrypted or packed
            by an unusual method. Others of ``ZIP_ERRORS`` come from damage.
    """
    with (
        open_regular(path, buffering=0) as raw,
        _BoundedReader(raw) as file,  # type: ignore[arg-type]
        zipfile.ZipFile(file) as archive,
    ):
        for record in archive.infolist():
            _check_method(record)
        yield archive, file


def _check_method(record: zipfile.ZipInfo) -> None:
    if record.flag_bits & 1:
        raise zipfile.BadZipFile(f"{record.filename[:80]} in it is encrypted")
    if record.compress_type not in _METHODS:
        raise zipfile.BadZipFile(
            f"{record.filename[:80]} in it is packed by the method {record.compress_type}"
        )


class _BoundedReader(io.BufferedReader):
    """A file of which no more than ``MOST_AT_ONCE`` bytes are read in one call.

    zipfile reads an archive's directory, of whatever length the archive declares, in one call.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MOST_AT_ONCE:
            raise zipfile.BadZipFile(
                f"its directory has {size} bytes; at most {MOST_AT_ONCE} are read"
            )
        return super().read(size)

    def seek(self, target: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a place, which a damaged directory may say is before the file's start."""
        if whence == os.SEEK_SET and target < 0:
            raise zipfile.BadZipFile("its directory names a place before its start")
        return super().seek(target, whence)


def record_start(file: IO[bytes], record: zipfile.ZipInfo) -> int:
    """Return where the bytes of a record start in its archive, all of them being there.

    Raises:
        BadZipFile: the record is elsewhere, or the file ends before it does.
    """
    place = max(0, record.header_offset)
    header = os.pread(file.fileno(), _LOCAL_HEADER.size, place)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MARK):
        raise zipfile.BadZipFile(f"{record.filename[:80]} is not where its directory says")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    start = int(place + _LOCAL_HEADER.size + name + extra)
    if start + record.compress_size > os.fstat(file.fileno()).st_size:
        raise zipfile.BadZipFile(f"{record.filename[:80]} extends past the end of the file")
    return start
