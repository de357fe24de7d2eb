"""Reading what a safetensors file declares about itself, without its weights.

The rule this module protects: a damaged or foreign file is refused from its header, before
gigabytes are read or a native parser sees it. The layout is that of the safetensors README. Imports
no MLX: the daemon looks at uploaded files and model folders with it.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import ModelError
from daemon.regular_files import open_regular
from daemon.tensor_sizes import checked_shape, checked_size

DAMAGED = "download or copy the file again: it is incomplete or damaged"
MAX_HEADER = 16 * 2**20  # bytes, of some 100,000 tensors; the format itself allows 100 MB

_SHOWN = 80
_DTYPE = re.compile(r"[A-Z0-9_]{1,16}")
_MALFORMED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """One declared tensor: element type, shape, and where its bytes lie in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        """Number of elements as stored (a packed word of a quantised weight counts as one)."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class WeightsHeader:
    """What a weights file declares: tensors in file order, scalar metadata, size of the header."""

    tensors: tuple[TensorInfo, ...]
    data_start: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_safetensors_header(
    path: Path, *, name: str | None = None, most: int = MAX_HEADER
) -> WeightsHeader:
    """Read and check the header of a safetensors file, which may have ``most`` bytes.

    ``name`` is what messages call the file, if not by its own name.

    Raises:
        ModelError: the file is not safetensors, or is shorter than it declares.
        OSError: it cannot be opened, or is no regular file.
    """
    name = name or path.name
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= size - 8:
            raise ModelError(f"{name} is not a complete safetensors file", remedy=DAMAGED)
        if length > most:
            raise ModelError(
                f"{name} has a header of {length} bytes; at most {most} are read", remedy=DAMAGED
            )
        text = file.read(length)
    try:
        tensors = _safetensors_tensors(json.loads(text), 8 + length)
    except _MALFORMED as error:
        raise ModelError(f"{name} has an unreadable header: {error}", remedy=DAMAGED) from None
    return within(name, size, WeightsHeader(tensors=tensors, data_start=8 + length))


def _safetensors_tensors(header: dict[str, Any], start: int) -> tuple[TensorInfo, ...]:
    """Return the declared tensors, by their place in the file."""
    found = [
        _tensor(name, entry, start) for name, entry in header.items() if name != "__metadata__"
    ]
    return tuple(sorted(found, key=lambda tensor: (tensor.offset, tensor.name)))


def _tensor(name: str, entry: dict[str, Any], start: int) -> TensorInfo:
    dtype, (begin, end) = entry["dtype"], map(checked_size, entry["data_offsets"])
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise ValueError(f"the type of {name[:_SHOWN]} is {str(dtype)[:_SHOWN]!r}")
    return TensorInfo(
        name=name,
        dtype=dtype,
        shape=checked_shape(entry["shape"]),
        offset=start + begin,
        bytes=end - begin,
    )


def within(name: str, size: int, header: WeightsHeader) -> WeightsHeader:
    """Return ``header`` if every declared tensor lies inside the file's ``size`` bytes."""
    for tensor in header.tensors:
        if tensor.bytes < 0 or tensor.offset + tensor.bytes > size:
            raise ModelError(
                f"{name} is incomplete: it has {size} bytes, and tensor {tensor.name[:_SHOWN]} "
                f"ends at {tensor.offset + tensor.bytes}",
                remedy=DAMAGED,
            )
    return header
