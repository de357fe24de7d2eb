"""What an ``.npz`` archive declares about itself: its arrays, without reading them.

The rule this module protects: of each array its header alone is read, as text and never as pickle.
The layout is that of ``numpy.lib.format`` (versions 1 to 3). Numpy itself is not imported: the
daemon answers faster without it.
"""

from __future__ import annotations

import ast
import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED, TensorInfo, WeightsHeader

# numpy's names of types: those of safetensors. Numpy has no bfloat16; MLX writes it as two bytes.
_TYPES = {"f2": "F16", "f4": "F32", "f8": "F64", "V2": "BF16", "u4": "U32", "u2": "U16"}
_TYPES |= {"u1": "U8", "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u8": "U64"}

_MARK = b"\x93NUMPY"
_MOST_HEADER = 64 * 2**10
_SUFFIX = ".npy"

_MALFORMED = (
    zipfile.BadZipFile,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    RuntimeError,
    NotImplementedError,
    RecursionError,
    struct.error,
)


def read_npz_header(path: Path, *, name: str | None = None) -> WeightsHeader:
    """Read the headers of all arrays of an archive.

    ``name`` is what messages call the file, if not by its own name.

    Raises:
        ModelError: it is damaged, or holds Python objects, which only pickle can read.
    """
    name = name or path.name
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = tuple(_info(name, archive, record) for record in archive.infolist())
    except _MALFORMED as error:
        raise ModelError(
            f"{name} is not a complete archive of arrays: {error}", remedy=DAMAGED
        ) from None
    return WeightsHeader(tensors=tensors, data_start=0)


def _info(name: str, archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> TensorInfo:
    with archive.open(record) as entry:
        settings, start = _array_header(entry)
    code, shape = settings["descr"], tuple(map(int, settings["shape"]))
    if not isinstance(code, str) or code.endswith("O"):
        raise ModelError(
            f"{name} is refused: {record.filename} holds Python objects, which only a pickle can "
            "bring back",
            remedy="save the weights as plain arrays of numbers",
        )
    size = math.prod(shape) * int(code[2:])
    if record.file_size < start + size:
        raise zipfile.BadZipFile(f"{record.filename} has fewer bytes than its array")
    return TensorInfo(
        name=record.filename.removesuffix(_SUFFIX),
        dtype=_TYPES[code[1:]],
        shape=shape,
        offset=record.header_offset,
        bytes=size,
    )


def _array_header(entry: IO[bytes]) -> tuple[dict[str, Any], int]:
    """Return what an array's header says, and where its numbers start in the entry."""
    begin = entry.read(8)
    if begin[:6] != _MARK:
        raise ValueError("one of its entries is no array")
    code = "<H" if begin[6] == 1 else "<I"
    length = struct.unpack(code, entry.read(struct.calcsize(code)))[0]
    if length > _MOST_HEADER:
        raise ValueError(f"the header of one of its arrays has {length} bytes")
    settings = ast.literal_eval(entry.read(length).decode("utf-8").strip())
    return settings, 8 + struct.calcsize(code) + length
