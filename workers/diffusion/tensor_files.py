"""Safetensors files opened by what they declare; their tensors are read when they are used.

The rule this module protects: a file is checked from its header before MLX sees it. What is not
safetensors, is cut short, or declares sizes that do not agree, is refused in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED, TensorInfo, read_safetensors_header

Shape = tuple[int, ...]

FLOATS = {"F16": 2, "BF16": 2, "F32": 4}
_OTHERS = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U32": 4, "U8": 1, "BOOL": 1, "F8_E4M3": 1}
_WIDTHS = FLOATS | _OTHERS  # what MLX reads
_PLAIN = "use the file's version in 16 or 32 bits"
_PICKLES = (b"PK", b"\x80")  # a zip archive or a pickle, both of which torch.save writes


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """One opened file: shapes, element types (safetensors' names) and tensors by name.

    ``name`` is what messages call it. ``arrays`` are not yet read. ``metadata`` is what the header
    holds as ``__metadata__``.
    """

    path: Path
    name: str
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    arrays: Mapping[str, mx.array]
    metadata: Mapping[str, str]

    def floats(self, name: str) -> mx.array:
        """Return a tensor that must hold floating-point numbers.

        Raises:
            ModelError: its element type is another.
        """
        if self.dtypes[name] not in FLOATS:
            raise ModelError(
                f"{self.name}: {name} is stored as {self.dtypes[name]}; "
                f"what can be used is {', '.join(FLOATS)}",
                remedy=_PLAIN,
            )
        return self.arrays[name]


def open_tensors(path: Path, name: str | None = None) -> TensorFile:
    """Open a safetensors file; ``name`` is what messages call it, if not by its own name.

    Raises:
        ModelError: it is missing, a pickle, not safetensors, incomplete, or of unknown types.
    """
    name = name or path.name
    _refuse_pickle(path, name)
    tensors = read_safetensors_header(path, name=name).tensors
    for tensor in tensors:
        _check(name, tensor)
    try:
        loaded: Any = mx.load(str(path), format="safetensors", return_metadata=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{name} cannot be read: {error}", remedy=DAMAGED) from error
    return TensorFile(
        path=path,
        name=name,
        shapes={tensor.name: tensor.shape for tensor in tensors},
        dtypes={tensor.name: tensor.dtype for tensor in tensors},
        arrays=loaded[0],
        metadata=loaded[1],
    )


def _refuse_pickle(path: Path, name: str) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror}") from error
    # A safetensors file starts with eight bytes of length, which may be any, and a brace.
    if start.startswith(_PICKLES) and start[8:] != b"{":
        raise ModelError(
            f"{name} is a pickle file, which can run code when it is read; studioq reads none",
            remedy="use the .safetensors version of the file",
        )


def _check(name: str, tensor: TensorInfo) -> None:
    width = _WIDTHS.get(tensor.dtype)
    if width is None:
        raise ModelError(
            f"{name}: {tensor.name} is stored as {tensor.dtype}, which cannot be read",
            remedy=_PLAIN,
        )
    needed = tensor.elements * width
    if needed != tensor.bytes or min(tensor.shape, default=0) < 0:
        raise ModelError(
            f"{name} is damaged: {tensor.name} has {tensor.bytes} bytes, and its shape "
            f"{tensor.shape} in {tensor.dtype} needs {needed}",
            remedy=DAMAGED,
        )
