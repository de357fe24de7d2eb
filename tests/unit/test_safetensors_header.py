"""A safetensors file is judged by its header, and a bad one says which file it is."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from daemon.errors import ModelError
from daemon.safetensors_header import read_safetensors_header


def test_tensors_are_read_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"b": np.zeros((2, 3), np.float16), "a": np.zeros(4, np.float32)}, path)
    header = read_safetensors_header(path)
    found = {tensor.name: (tensor.dtype, tensor.shape, tensor.bytes) for tensor in header.tensors}
    assert found == {"b": ("F16", (2, 3), 12), "a": ("F32", (4,), 16)}


def written(folder: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path = folder / ("0" * 64)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"\xff\xfe",
        [],
        {"a": 1},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    ],
)
def test_a_bad_header_is_refused_under_the_name_its_owner_knows(
    tmp_path: Path, header: object
) -> None:
    with pytest.raises(ModelError, match=r"^mine\.safetensors (has an unread|is incomplete)"):
        read_safetensors_header(written(tmp_path, header), name="mine.safetensors")


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 9, b"just a text, no tensors at all"])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.safetensors is not a complete safetensors file"):
        read_safetensors_header(path)


def test_a_header_longer_than_the_reader_takes_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {})
    read_safetensors_header(path, most=2)
    with pytest.raises(ModelError):
        read_safetensors_header(path, most=1)
