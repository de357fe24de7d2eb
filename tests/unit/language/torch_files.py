"""PyTorch checkpoints written without PyTorch, opcode by opcode as ``torch.save`` writes them."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_STORAGES = {"float16": b"HalfStorage", "uint16": b"BFloat16Storage", "float32": b"FloatStorage"}


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def sizes(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, kind: bytes, elements: int) -> bytes:
    described = text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu")
    return b"(" + described + number(elements) + b"tQ"


def tensor(
    stored: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    """A call of _rebuild_tensor_v2 without gradients and with an empty OrderedDict of hooks."""
    arguments = stored + number(offset) + sizes(shape) + sizes(strides)
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + hooks + b"tR"


def index(tensors: Mapping[str, bytes]) -> bytes:
    """An OrderedDict of tensors, with the attribute that state_dict() gives it."""
    items = b"".join(text(name) + value for name, value in tensors.items())
    metadata = b"}" + text("_metadata") + b"ccollections\nOrderedDict\n)Rsb"
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u" + metadata + b"."


def write_archive(
    path: Path,
    pickled: bytes,
    records: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    byteorder: bytes = b"little",
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{path.stem}/data.pkl", pickled)
        archive.writestr(f"{path.stem}/byteorder", byteorder)
        for key, record in records.items():
            archive.writestr(f"{path.stem}/data/{key}", record)
        archive.writestr(f"{path.stem}/version", b"3\n")
    return path


def write_checkpoint(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Write contiguous tensors, a storage for each; uint16 as bfloat16."""
    tensors: dict[str, bytes] = {}
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)
        stored = storage(str(key), _STORAGES[str(array.dtype)], array.size)
        tensors[name] = tensor(stored, array.shape, strides)
    records = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    return write_archive(path, index(tensors), records)
