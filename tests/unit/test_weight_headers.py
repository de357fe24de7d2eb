"""What GGUF, PyTorch and npz files declare is read from their headers, or refused by a message."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.errors import ModelError
from daemon.gguf_header import read_gguf_header
from daemon.npz_header import read_npz_header
from daemon.torch_header import read_torch_header
from tests.unit.image_folders import cut_short
from tests.unit.language.torch_files import index, storage, tensor, write_archive, write_checkpoint
from tests.unit.language_folders import TOKENS, write_gguf


def message(read: Callable[..., Any], file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read(file, name="mine")
    assert caught.value.remedy
    return caught.value.message


def test_a_gguf_header_tells_types_shapes_and_settings(tmp_path: Path) -> None:
    tensors = {"a.weight": ("Q4_1", (2, 32)), "b.weight": ("F32", (3,))}
    settings = TOKENS | {"tokenizer.ggml.token_type": [1, 1, 3], "general.alignment": 32}
    header = read_gguf_header(write_gguf(tmp_path / "m.gguf", tensors, settings))
    first, second = header.tensors
    assert (first.name, first.dtype, first.shape, first.bytes) == ("a.weight", "Q4_1", (2, 32), 40)
    assert (second.dtype, second.elements, second.offset) == ("F32", 3, header.data_start + 64)
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["general.alignment"] == 32
    assert "tokenizer.ggml.tokens" not in header.metadata


@pytest.mark.parametrize("kept", [0, 10, 30, 100, 170])
def test_a_gguf_file_that_was_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes()[:kept])
    assert message(read_gguf_header, file).startswith("mine is not a complete GGUF file")


def test_a_gguf_file_without_its_last_weights_says_where_it_ends(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    cut_short(file)
    assert "mine is incomplete: it has" in message(read_gguf_header, file)


@pytest.mark.parametrize(
    ("place", "value", "said"), [(0, 0, "GGUF's mark"), (4, 9, "version 9"), (8, 2**31, "complete")]
)
def test_a_foreign_gguf_file_is_refused(tmp_path: Path, place: int, value: int, said: str) -> None:
    file = write_gguf(tmp_path / "m.gguf")
    data = bytearray(file.read_bytes())
    data[place : place + 4] = struct.pack("<I", value)
    file.write_bytes(data)
    assert said in message(read_gguf_header, file)


def test_a_checkpoint_is_read_by_its_index(tmp_path: Path) -> None:
    file = write_checkpoint(
        tmp_path / "c.pth", {"w": np.zeros((3, 4), np.float16), "n": np.zeros(4, np.float32)}
    )
    found = {info.name: (info.dtype, info.shape, info.bytes) for info in _torch(file)}
    assert found == {"w": ("F16", (3, 4), 24), "n": ("F32", (4,), 16)}


def test_two_tensors_over_one_storage_have_one_offset(tmp_path: Path) -> None:
    stored = storage("0", b"HalfStorage", 12)
    pickled = index({"a": tensor(stored, (3, 4), (4, 1)), "b": tensor(stored, (3, 4), (4, 1))})
    first, second = _torch(write_archive(tmp_path / "c.pth", pickled, {"0": bytes(24)}))
    assert first.offset == second.offset


def _torch(file: Path) -> Any:
    return read_torch_header(file).tensors


def test_a_checkpoint_that_asks_for_more_than_tensors_is_refused(tmp_path: Path) -> None:
    file = write_archive(tmp_path / "c.pth", b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", {})
    assert "asks to run os.system" in message(read_torch_header, file)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "c.pth", {"w": np.zeros((3, 4), np.float16)})
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "not a complete PyTorch checkpoint" in message(read_torch_header, file)
    pickled = index({"w": tensor(storage("0", b"HalfStorage", 12), (3, 4), (4, 1))})
    write_archive(file, pickled, {"0": bytes(22)})
    assert "has 22 of the 24 bytes" in message(read_torch_header, file)
    write_archive(file, pickled, {"1": bytes(24)})
    assert "the numbers of w are not in it" in message(read_torch_header, file)
    file.write_bytes(pickle.dumps({}, protocol=2))
    assert "before version 1.6" in message(read_torch_header, file)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_archive_is_read_by_its_headers(tmp_path: Path, save: Any) -> None:
    bfloat16 = np.zeros((2, 2), "V2")
    save(tmp_path / "w.npz", a=np.zeros((3, 4), np.float16), b=np.zeros(5, np.uint32), c=bfloat16)
    found = {info.name: info for info in read_npz_header(tmp_path / "w.npz").tensors}
    assert [(info.dtype, info.shape, info.bytes) for info in found.values()] == [
        ("F16", (3, 4), 24),
        ("U32", (5,), 20),
        ("BF16", (2, 2), 8),
    ]


def test_an_npz_archive_with_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.array([{}], object))
    assert "a holds Python objects" in message(read_npz_header, tmp_path / "w.npz")


def test_a_damaged_npz_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.npz"
    np.savez(file, a=np.zeros(99, np.float32))
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    assert "mine is not a complete archive of arrays" in message(read_npz_header, file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"no array")
    assert "a.npy is no array" in message(read_npz_header, file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31))
    assert f"has {2**31} bytes" in message(read_npz_header, file)
    with zipfile.ZipFile(file, "w") as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000,)}\n"
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    assert "a has 0 of 4000 bytes" in message(read_npz_header, file)
