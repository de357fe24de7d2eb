"""What a GGUF file declares about itself, as far as the daemon needs it: settings and tensors.

The rule this module protects: a damaged or foreign file is known from its header, however large it
is. The layout and the types are those of docs/gguf.md and ggml.h in the ggml project (versions 2
and 3, little endian). Which of the types a job can load is the engine's business; here all are
known, so that their weights can be counted.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED, TensorInfo, WeightsHeader, within

# ggml's number of a type: its name, weights per block, bytes per block.
_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
_LEAST_BYTES = 24
_MOST_AXES = 4  # GGML_MAX_DIMS


def read_gguf_counts(path: Path, *, name: str | None = None) -> WeightsHeader:
    """Read and check the header of a GGUF file; of an array in its metadata the length is given.

    ``name`` is what messages call the file, if not by its own name.

    Raises:
        ModelError: the file is not GGUF of version 2 or 3, or is shorter than it declares.
    """
    name = name or path.name
    size = path.stat().st_size
    if size < _LEAST_BYTES:
        raise ModelError(f"{name} is not a complete GGUF file", remedy=DAMAGED)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            header = _Reader(data).header()
        except (struct.error, ValueError, LookupError, OverflowError, RecursionError) as error:
            raise ModelError(
                f"{name} is not a complete GGUF file: {error}", remedy=DAMAGED
            ) from None
    return within(name, size, header)


class _Reader:
    """A place in the header, moved by each read."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._place = 0

    def header(self) -> WeightsHeader:
        """Read the whole header from the start."""
        if self._data[:4] != b"GGUF":
            raise ValueError("it does not start with GGUF's mark")
        self._place = 4
        version, tensors, values = self._number("I"), self._number("Q"), self._number("Q")
        if version not in (2, 3):
            raise ValueError(f"version {version} is unknown; 2 and 3 can be read")
        metadata = dict(self._setting() for _ in range(values))
        declared = [self._tensor() for _ in range(tensors)]
        alignment = max(1, int(metadata.get("general.alignment", 32)))
        start = -(-self._place // alignment) * alignment
        infos = tuple(
            TensorInfo(name=name, dtype=dtype, shape=shape, offset=start + offset, bytes=length)
            for name, dtype, shape, offset, length in declared
        )
        return WeightsHeader(tensors=infos, data_start=start, metadata=metadata)

    def _setting(self) -> tuple[str, Any]:
        return self._text(), self._value(self._number("I"))

    def _tensor(self) -> tuple[str, str, tuple[int, ...], int, int]:
        name, axes = self._text(), self._number("I")
        if axes > _MOST_AXES:
            raise ValueError(f"tensor {name} has {axes} axes")
        shape = tuple(self._number("Q") for _ in range(axes))[::-1]
        kind, offset = self._number("I"), self._number("Q")
        if kind not in _TYPES:
            raise ValueError(f"tensor {name} has the unknown ggml type {kind}")
        dtype, weights, width = _TYPES[kind]
        return name, dtype, shape, offset, math.prod(shape) // weights * width

    def _number(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self._data, self._place)[0]
        self._place += struct.calcsize("<" + code)
        return value

    def _text(self) -> str:
        length = self._number("Q")
        if length > len(self._data) - self._place:
            raise ValueError("a text extends past the end of the file")
        self._place += length
        return self._data[self._place - length : self._place].decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._skipped_array()
        return self._number(_SCALARS[kind])

    def _skipped_array(self) -> int:
        """Pass over an array and return its length."""
        kind, count = self._number("I"), int(self._number("Q"))
        if kind in _SCALARS:
            self._place += count * struct.calcsize("<" + _SCALARS[kind])
        elif kind == _STRING:
            self._skip_texts(count)
        else:
            for _ in range(count):
                self._value(kind)
        return count

    def _skip_texts(self, count: int) -> None:
        read, data, place = _LENGTH.unpack_from, self._data, self._place
        for _ in range(count):
            place += 8 + read(data, place)[0]
        self._place = place
