"""Reading what a safetensors file declares about itself, without its weights.

The rule this module protects: a damaged or foreign file is refused from its header, before
gigabytes are read or a native parser sees it. The layout is that of the safetensors README. Imports
no MLX: the daemon looks at uploaded files and model folders with it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import ModelError

DAMAGED = "download or copy the file again: it is incomplete or damaged"
MAX_HEADER = 100 * 2**20  # the safetensors format's own limit


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
    """
    name = name or path.name
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(size - 8, most):
            raise ModelError(f"{name} is not a complete safetensors file", remedy=DAMAGED)
        text = file.read(length)
    try:
        tensors = _safetensors_tensors(json.loads(text), 8 + length)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{name} has an unreadable header: {error}", remedy=DAMAGED) from None
    return within(name, size, WeightsHeader(tensors=tensors, data_start=8 + length))


def _safetensors_tensors(header: dict[str, Any], start: int) -> tuple[TensorInfo, ...]:
    """Return the declared tensors, by their place in the file."""
    found = [
        TensorInfo(
            name=name,
            dtype=str(entry["dtype"]),
            shape=tuple(int(size) for size in entry["shape"]),
            offset=start + int(entry["data_offsets"][0]),
            bytes=int(entry["data_offsets"][1]) - int(entry["data_offsets"][0]),
        )
        for name, entry in header.items()
        if name != "__metadata__"
    ]
    return tuple(sorted(found, key=lambda tensor: (tensor.offset, tensor.name)))


def within(name: str, size: int, header: WeightsHeader) -> WeightsHeader:
    """Return ``header`` if every declared tensor lies inside the file's ``size`` bytes."""
    for tensor in header.tensors:
        if tensor.bytes < 0 or tensor.offset + tensor.bytes > size:
            raise ModelError(
                f"{name} is incomplete: it has {size} bytes, and tensor {tensor.name} "
                f"ends at {tensor.offset + tensor.bytes}",
                remedy=DAMAGED,
            )
    return header
