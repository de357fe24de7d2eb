"""Reading what a GGUF file declares about itself, without its weights and without MLX.

The rule this module protects: a damaged or foreign file is refused from its header, before
gigabytes are read or a native parser sees it. The layout is that of docs/gguf.md in the ggml
project (versions 2 and 3, little endian). Daemon and engine read with it.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.errors import ModelError
from daemon.regular_files import open_regular
from daemon.safetensors_header import DAMAGED, TensorInfo, WeightsHeader, within
from daemon.tensor_sizes import MOST_AXES, checked_shape, checked_size

if TYPE_CHECKING:
    import numpy as np

# ggml type number: name, elements per block, bytes per block (GGML_QUANT_SIZES of llama.cpp).
_GGML_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
# Types that MLX holds as they are: bits of an element; 32 share a scale and a bias of 16 bits.
AFFINE_BITS = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8}
AFFINE_GROUP = 32
_PLAIN = ("F32", "F16", "BF16")
QUANTISED = frozenset(name for name, _, _ in _GGML_TYPES.values()).difference(_PLAIN)
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_MALFORMED = (
    struct.error,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    RecursionError,
    MemoryError,
)
# Published files have some 5,000 tensors at most, and some 800,000 tokens and merges.
_MOST_ENTRIES = 2**22  # tensors, settings, and elements of arrays that are not plain numbers
_MOST_TEXT = 2**26  # bytes of all texts that are kept
_MOST_ALIGNMENT = 2**20


def read_gguf_header(path: Path, *, arrays: bool = False, name: str | None = None) -> WeightsHeader:
    """Read and check the header of a GGUF file.

    The metadata's arrays are skipped unless ``arrays`` are asked for: a tokenizer has hundreds of
    thousands of entries. Texts come as a tuple, numbers as a numpy array. ``name`` is what messages
    call the file, if not by its own name.

    Raises:
        ModelError: the file is not GGUF of version 2 or 3, or is shorter than it declares.
        OSError: it cannot be opened, or is no regular file.
    """
    name = name or path.name
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < 24:
            raise ModelError(f"{name} is not a complete GGUF file", remedy=DAMAGED)
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            return within(name, size, _header(name, data, arrays=arrays))


def _header(name: str, data: mmap.mmap, *, arrays: bool) -> WeightsHeader:
    try:
        return _Cursor(data, arrays=arrays).header()
    except _MALFORMED as error:
        raise ModelError(f"{name} is not a complete GGUF file: {error}", remedy=DAMAGED) from None
    except _UnreadableError as error:
        raise ModelError(f"{name}: {error}", remedy=error.remedy) from None


def loaded_bytes(tensor: TensorInfo) -> int:
    """Return the bytes that a tensor of a GGUF file takes in memory, as it is loaded on a GPU.

    What MLX holds as it is keeps its bits, with a scale and a bias of 16 bits for each group; every
    other quantised type becomes float16.
    """
    if tensor.dtype in _PLAIN:
        return tensor.bytes
    if tensor.dtype in AFFINE_BITS and len(tensor.shape) > 1:
        return (
            tensor.elements * AFFINE_BITS[tensor.dtype] // 8 + tensor.elements // AFFINE_GROUP * 4
        )
    return 2 * tensor.elements


class _UnreadableError(Exception):
    """A GGUF header says something that this reader does not know."""

    def __init__(self, message: str, remedy: str = DAMAGED) -> None:
        super().__init__(message)
        self.remedy = remedy


class _Cursor:
    """A place in a GGUF file's header, moved by each read."""

    def __init__(self, data: mmap.mmap, *, arrays: bool) -> None:
        self._data = data
        self._arrays = arrays
        self._place = 0
        self._entries = _MOST_ENTRIES
        self._text_bytes = _MOST_TEXT

    def header(self) -> WeightsHeader:
        """Read the whole header from the start."""
        if self._data[:4] != b"GGUF":
            raise _UnreadableError("it does not start with GGUF's mark")
        self._place = 4
        version, tensors, values = self._number("I"), self._number("Q"), self._number("Q")
        if version not in (2, 3):
            raise _UnreadableError(f"GGUF version {version} is unknown; 2 and 3 can be read")
        self._claim(tensors + values)
        metadata = {self._text(): self._value(self._number("I")) for _ in range(values)}
        infos = [self._tensor() for _ in range(tensors)]
        if len({info.name for info in infos}) < len(infos):
            raise _UnreadableError("it declares two tensors of one name")
        start = _aligned(self._place, metadata.get("general.alignment", 32))
        return WeightsHeader(
            tensors=tuple(_moved(info, start) for info in infos),
            data_start=start,
            metadata={key: value for key, value in metadata.items() if value is not None},
        )

    def _claim(self, entries: int) -> None:
        """Count what is about to be read one by one."""
        self._entries -= entries
        if self._entries < 0:
            raise ValueError(f"its header has more than {_MOST_ENTRIES} entries")

    def _claim_text(self, length: int) -> None:
        self._text_bytes -= length
        if self._text_bytes < 0:
            raise ValueError(f"the texts of its header have more than {_MOST_TEXT} bytes")

    def _number(self, code: str) -> Any:
        value = struct.unpack_from("<" + code, self._data, self._place)[0]
        self._place += struct.calcsize("<" + code)
        return value

    def _text(self) -> str:
        length = self._number("Q")
        if length > len(self._data) - self._place:
            raise IndexError("a text extends past the end of the file")
        self._claim_text(length)
        text = self._data[self._place : self._place + length].decode("utf-8")
        self._place += length
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array() if self._arrays else self._skip_array()
        if kind not in _SCALARS:
            raise _UnreadableError(f"a metadata value has the unknown type {kind}")
        return self._number(_SCALARS[kind])

    def _skip_array(self) -> None:
        kind, count = self._number("I"), self._number("Q")
        if kind in _SCALARS:
            self._place += count * struct.calcsize("<" + _SCALARS[kind])
        elif kind == _STRING:
            self._skip_texts(count)
        else:
            self._claim(count)
            for _ in range(count):
                self._value(kind)

    def _skip_texts(self, count: int) -> None:
        self._claim(count)
        data, place, length_at = self._data, self._place, struct.Struct("<Q").unpack_from
        for _ in range(count):
            place += 8 + length_at(data, place)[0]
        self._place = place

    def _array(self) -> Any:
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            return self._texts(count)
        if kind in _SCALARS:
            return self._numbers(_SCALARS[kind], count)
        self._claim(count)
        return tuple(self._value(kind) for _ in range(count))

    def _texts(self, count: int) -> tuple[str, ...]:
        """Read texts one behind another; this loop is most of the time that a header takes."""
        self._claim(count)
        data, place, length_at = self._data, self._place, struct.Struct("<Q").unpack_from
        texts = []
        for _ in range(count):
            end = place + 8 + length_at(data, place)[0]
            self._claim_text(end - place - 8)
            texts.append(data[place + 8 : end].decode("utf-8"))
            place = end
        self._place = place
        return tuple(texts)

    def _numbers(self, code: str, count: int) -> np.ndarray:
        import numpy as np  # not in the daemon, which asks for no arrays

        dtype = np.dtype(code).newbyteorder("<")
        end = self._place + count * dtype.itemsize
        if end > len(self._data):
            raise IndexError("an array extends past the end of the file")
        numbers = np.frombuffer(self._data[self._place : end], dtype)
        self._place = end
        return numbers

    def _tensor(self) -> TensorInfo:
        name, dimensions = self._text(), self._number("I")
        if dimensions > MOST_AXES:
            raise ValueError(f"a tensor has {dimensions} axes; at most {MOST_AXES} are read")
        shape = checked_shape([self._number("Q") for _ in range(dimensions)][::-1])
        kind, offset = self._number("I"), self._number("Q")
        if kind not in _GGML_TYPES:
            known = ", ".join(name for name, _, _ in _GGML_TYPES.values())
            raise _UnreadableError(
                f"tensor {name[:80]} has the ggml type number {kind}, which cannot be read",
                f"use a file whose tensors are of the types {known}",
            )
        dtype, elements, width = _GGML_TYPES[kind]
        if elements > 1 and (not shape or shape[-1] % elements):
            raise _UnreadableError(
                f"tensor {name[:80]} has the shape {shape}, whose rows are not whole blocks of "
                f"{dtype}"
            )
        length = math.prod(shape) // elements * width
        return TensorInfo(
            name=name, dtype=dtype, shape=shape, offset=checked_size(offset), bytes=length
        )


def _moved(info: TensorInfo, start: int) -> TensorInfo:
    """Return ``info`` with its offset counted from the start of the file."""
    return TensorInfo(
        name=info.name,
        dtype=info.dtype,
        shape=info.shape,
        offset=info.offset + start,
        bytes=info.bytes,
    )


def _aligned(place: int, alignment: object) -> int:
    """Return the next place that is a multiple of ``alignment``."""
    if type(alignment) is not int or not 0 < alignment <= _MOST_ALIGNMENT:
        raise ValueError(f"general.alignment is {str(alignment)[:80]!r}")
    return (place + alignment - 1) // alignment * alignment
