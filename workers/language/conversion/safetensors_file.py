"""A safetensors file that is written while its tensors are computed.

The rule this module protects: the file is laid out before the first number is known, so that each
tensor, or a few rows of it, can be written to its place and forgotten. The format is that of
huggingface/safetensors: the header's length (8 bytes), the header (JSON), the data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx

from daemon.durable import sync_file

_NAMES: dict[mx.Dtype, str] = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.uint64: "U64",
    mx.int64: "I64",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
}
# The data start at a multiple of this, as safetensors' own writer has it.
_ALIGNMENT = 8
_METADATA = {"format": "mlx"}


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Shape and type of a tensor that is still to be computed."""

    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def bytes(self) -> int:
        """Bytes of its numbers."""
        return self.row_bytes * (self.shape[0] if self.shape else 1)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, which is all of the tensor but its first axis."""
        size: int = self.dtype.size
        for length in self.shape[1:]:
            size *= length
        return size


def specs_of(arrays: Mapping[str, mx.array]) -> dict[str, TensorSpec]:
    """Return shapes and types of arrays; they are not computed for it."""
    return {
        name: TensorSpec(shape=tuple(array.shape), dtype=array.dtype)
        for name, array in arrays.items()
    }


class SafetensorsFile:
    """A file under construction at ``path``, for ``tensors`` in their order there."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorSpec]) -> None:
        self._tensors = tensors
        self._starts: dict[str, int] = {}
        header = _header(tensors)
        place = len(header)
        for name, tensor in tensors.items():
            self._starts[name] = place
            place += tensor.bytes
        self._file: BinaryIO = path.open("wb")
        self._file.write(header)
        self._file.flush()
        self._end = place

    def write(self, name: str, rows: mx.array, first: int = 0) -> None:
        """Write rows of a tensor, from row ``first`` on.

        Raises:
            OSError: the disk is full or broken.
            ValueError: they are of another type than was laid out.
        """
        tensor = self._tensors[name]
        if rows.dtype != tensor.dtype or tuple(rows.shape[1:]) != tensor.shape[1:]:
            raise ValueError(f"{name} was laid out as {tensor}, and is {rows.dtype} {rows.shape}")
        _write_at(
            self._file.fileno(), bytes_of(rows), self._starts[name] + first * tensor.row_bytes
        )

    def finish(self) -> None:
        """Sync and close the file.

        Raises:
            OSError: the disk is full or broken.
        """
        try:
            self._file.truncate(self._end)
            sync_file(self._file)
        finally:
            self._file.close()

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()


def bytes_of(array: mx.array) -> memoryview:
    """Return the bytes of an array in row order, copied only if they are not so in memory."""
    if not array.size:
        return memoryview(b"")
    # Python's buffers know no bfloat16; its bits pass as integers.
    plain = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
    buffer: Any = mx.contiguous(plain)
    ordered = memoryview(buffer)
    return ordered.cast("B") if plain.ndim else memoryview(bytes(ordered))


def _header(tensors: Mapping[str, TensorSpec]) -> bytes:
    described: dict[str, object] = {"__metadata__": _METADATA}
    place = 0
    for name, tensor in tensors.items():
        described[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, place + tensor.bytes],
        }
        place += tensor.bytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write_at(descriptor: int, data: memoryview, place: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written
