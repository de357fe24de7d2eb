"""What an ``.npz`` archive declares about itself: its arrays, without reading them.

The rule this module protects: of each array its header alone is read, as a text of one form and
never as Python or pickle, and an archive that unpacks to far more than weights do is not unpacked.
The layout is that of ``numpy.lib.format`` (versions 1 and 2). Numpy has no bfloat16: MLX writes it
as two bytes without a meaning, V2. Daemon and engine read with it; numpy is not imported, since the
daemon answers faster without it.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED, TensorInfo, WeightsHeader
from daemon.tensor_sizes import checked_shape
from daemon.zip_archives import ZIP_ERRORS, open_zip, record_start

# numpy's names of the types that are read: safetensors' name, and bytes. MLX writes ``<V2``.
_TYPES = {"<f2": ("F16", 2), "<f4": ("F32", 4), "<u4": ("U32", 4)}
_TYPES |= dict.fromkeys(("|V2", "<V2"), ("BF16", 2))

_MARK = b"\x93NUMPY"
_LENGTHS = {b"\x01\x00": "<H", b"\x02\x00": "<I"}
# Without going back over spaces (``*+``), of which a header may have thousands.
_HEADER = re.compile(
    r"\{ *+'descr': *+'(?P<type>[^']{1,16})', *+'fortran_order': *+(?P<columns>True|False), *+"
    r"'shape': *+\((?P<shape>[0-9, ]*+)\) *+,? *+\} *+\n?"
)
_MOST_HEADER = 2**16
_MOST_TIMES = 64  # how much an archive may grow when it is unpacked: weights hardly shrink
_ANY_SIZE = 2**28  # bytes; a smaller one may be of zeros
_SUFFIX = ".npy"


@dataclass(frozen=True, kw_only=True)
class NpzArray:
    """One array: its type, shape and place, and how it lies there.

    ``entry`` is its name in the archive. ``info.offset``: where its numbers start in the file, or
    where its packed entry does, whose first ``header`` bytes are no numbers.
    """

    info: TensorInfo
    entry: str
    header: int
    is_packed: bool
    by_columns: bool


def read_npz_arrays(path: Path, *, name: str | None = None) -> tuple[NpzArray, ...]:
    """Read and check the headers of all arrays of an archive.

    ``name`` is what messages call the file, if not by its own name.

    Raises:
        ModelError: it is damaged or unpacks to far more than weights do, or one of its arrays is
            not of float16, bfloat16, float32 or uint32.
        OSError: it cannot be opened, or is no regular file.
    """
    name = name or path.name

    def wrong(error: Exception) -> ModelError:
        return ModelError(f"{name} is not a complete archive of arrays: {error}", remedy=DAMAGED)

    try:
        with open_zip(path) as (archive, file):
            _check_size(name, archive, path.stat().st_size)
            found = tuple(_array(name, archive, file, entry) for entry in archive.infolist())
    except ZIP_ERRORS as error:
        raise wrong(error) from None
    if len({array.info.name for array in found}) != len(found):
        raise wrong(ValueError("two of its arrays have one name"))
    return found


def read_npz_header(path: Path, *, name: str | None = None) -> WeightsHeader:
    """Return what ``read_npz_arrays`` finds as all kinds of weights files are told of."""
    arrays = read_npz_arrays(path, name=name)
    return WeightsHeader(tensors=tuple(array.info for array in arrays), data_start=0)


def _check_size(name: str, archive: zipfile.ZipFile, packed: int) -> None:
    size = sum(entry.file_size for entry in archive.infolist())
    if size > max(_ANY_SIZE, _MOST_TIMES * packed):
        raise ModelError(
            f"{name} is refused: its {packed:,} bytes unpack to {size:,}, which weights do not",
            remedy="use the file that the program wrote which made it",
        )


def _array(
    name: str, archive: zipfile.ZipFile, file: IO[bytes], entry: zipfile.ZipInfo
) -> NpzArray:
    """Read the header of one array, and check it against the entry's size."""
    array = entry.filename.removesuffix(_SUFFIX)
    with archive.open(entry) as opened:
        text, length = _header_text(entry.filename, opened)
    match = _HEADER.fullmatch(text)
    if match is None:
        raise ValueError(f"{array[:80]} has the header {text[:160].strip()!r}")
    kind, width = _type(name, array, match["type"])
    shape = _shape(match["shape"])
    declared = math.prod(shape) * width
    if length + declared != entry.file_size:
        raise ValueError(f"{array[:80]} has {entry.file_size - length} of {declared} bytes")
    packed = entry.compress_type != zipfile.ZIP_STORED
    offset = record_start(file, entry) + (0 if packed else length)
    return NpzArray(
        info=TensorInfo(name=array, dtype=kind, shape=shape, offset=offset, bytes=declared),
        entry=entry.filename,
        header=length,
        is_packed=packed,
        by_columns=match["columns"] == "True",
    )


def _header_text(entry: str, opened: IO[bytes]) -> tuple[str, int]:
    """Return an array's header, and where its numbers start in the entry."""
    mark, version = opened.read(len(_MARK)), opened.read(2)
    if mark != _MARK:
        raise ValueError(f"{entry[:80]} is no array")
    if version not in _LENGTHS:
        raise ValueError(f"{entry[:80]} is of an unknown version of NumPy's format")
    code = struct.Struct(_LENGTHS[version])
    length = int(code.unpack(opened.read(code.size))[0])
    if length > _MOST_HEADER:
        raise ValueError(f"the header of {entry[:80]} has {length} bytes")
    start = len(_MARK) + len(version) + code.size + length
    return opened.read(length).decode("latin-1"), start


def _type(name: str, array: str, code: str) -> tuple[str, int]:
    """Return the name of a type and its bytes."""
    if code in _TYPES:
        return _TYPES[code]
    if code.endswith("O"):
        raise ModelError(
            f"{name} is refused: {array[:80]} holds Python objects, and to read one is to run it",
            remedy="trust no copy of this file; weights are arrays of numbers",
        )
    raise ModelError(
        f"{array[:80]} of {name} is of the type {code}, which is not read",
        remedy="save the weights in float16, bfloat16 or float32",
    )


def _shape(text: str) -> tuple[int, ...]:
    """Return a shape from what stands between its parentheses, as Python writes it."""
    sizes = [size.strip() for size in text.split(",")]
    if sizes[-1] == "":
        sizes.pop()
    return checked_shape([int(size) for size in sizes])
