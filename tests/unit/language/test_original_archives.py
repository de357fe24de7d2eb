"""PyTorch checkpoints are read without PyTorch; damaged and malicious ones are refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from daemon.errors import ModelError
from tests.unit.language import torch_files
from tests.unit.language.original_cases import PLACE
from tests.unit.language.torch_files import write_archive, write_checkpoint
from workers.language.originals.archive import open_archive
from workers.language.originals.shards import open_shard

VALUES = np.arange(12, dtype=np.float32)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as refused:
        open_archive(path)
    assert refused.value.remedy
    assert path.name in refused.value.message
    return refused.value.message


def one_tensor(path: Path, pickled: bytes, **options: Any) -> Path:
    return write_archive(path, pickled, {"0": VALUES.tobytes()}, **options)


def tensor_of(elements: int, *place: Any, kind: bytes = b"FloatStorage") -> bytes:
    stored = torch_files.storage("0", kind, elements)
    return torch_files.index({"a": torch_files.tensor(stored, *place)})


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def test_what_torch_wrote_has_the_values_that_torch_read() -> None:
    shard = open_shard(PLACE / "torch.pth")
    with np.load(PLACE / "torch.npz") as expected:
        assert set(shard.tensors) == set(expected.files)
        for name in expected.files:
            read = shard.read(name)
            assert shard.tensors[name].shape == expected[name].shape == read.shape
            np.testing.assert_array_equal(np.array(read.astype(mx.float32)), expected[name], name)
    assert shard.read("bfloat16").dtype == mx.bfloat16
    assert shard.read("half").dtype == mx.float16
    assert shard.read("plain").dtype == mx.float32


def test_strides_and_offsets_count_elements(tmp_path: Path) -> None:
    path = one_tensor(tmp_path / "a.pth", tensor_of(12, (3, 2), (1, 4), 2))
    expected = [[2, 6], [3, 7], [4, 8]]
    assert open_archive(path).read("a").tolist() == expected


def test_a_file_that_lost_its_end_since_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.pth", {"a": VALUES})
    archive = open_archive(path)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ModelError, match="ends before its last tensor"):
        archive.read("a")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, "system"), (eval, "eval"), (subprocess.check_call, "check_call")],
)
def test_a_pickle_that_runs_something_is_refused_before_it_does(
    tmp_path: Path, protocol: int, function: Any, named: str
) -> None:
    touched = tmp_path / "touched"
    commands: dict[Any, Any] = {
        os.system: f"touch {touched}",
        eval: f"open({str(touched)!r}, 'w').close()",
        subprocess.check_call: ["touch", str(touched)],
    }
    pickled = pickle.dumps(Call(function, commands[function]), protocol)
    pickle.loads(pickled)
    touched.unlink()  # it does run, where nothing is refused
    path = one_tensor(tmp_path / "evil.pth", pickled)
    message = refusal(path)
    assert named in message
    assert "asks to run" in message
    assert not touched.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "load"),
        ("torch.hub", "FloatStorage"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "_rebuild_parameter"),
        ("collections", "OrderedDict.fromkeys"),
        ("builtins", "getattr"),
    ],
)
def test_names_near_the_allowed_ones_are_refused(tmp_path: Path, module: str, name: str) -> None:
    pickled = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")R."
    assert f"{module}.{name}" in refusal(one_tensor(tmp_path / "evil.pth", pickled))


@pytest.mark.parametrize("attributes", [b"N}", b"}", b"}N"])
def test_only_a_dictionary_is_given_attributes(tmp_path: Path, attributes: bytes) -> None:
    """Attributes of what stands for torch's function would be there for the next checkpoint."""
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    given = rebuild + attributes + torch_files.text("__defaults__") + b")s"
    for state in (given + b"b.", given + b"\x86b."):
        message = refusal(one_tensor(tmp_path / "evil.pth", b"\x80\x02" + state))
        assert "evil.pth is damaged: its data.pkl cannot be read" in message
    path = one_tensor(tmp_path / "a.pth", tensor_of(12, (12,), (1,)))
    assert open_archive(path).read("a").tolist() == VALUES.tolist()


def test_attributes_of_the_dictionary_are_not_called(tmp_path: Path) -> None:
    items = b"}" + torch_files.text("items") + b"ccollections\nOrderedDict\nsb."
    pickled = tensor_of(12, (12,), (1,))[:-1] + items
    assert list(open_archive(one_tensor(tmp_path / "a.pth", pickled)).tensors) == ["a"]


def test_a_memo_larger_than_the_pickle_reserves_nothing(tmp_path: Path) -> None:
    pickled = b"\x80\x02}r\xff\xff\xff\x7f."
    assert "2147483647" in refusal(one_tensor(tmp_path / "a.pth", pickled))


@pytest.mark.parametrize(
    ("pickled", "reason"),
    [
        (b"", "data.pkl"),
        (b"\x80\x02}", "data.pkl"),
        (b"\x80\x02K\x05.", "holds a int"),
        (b"\x80\x02}X\x01\x00\x00\x00aK\x05s.", "a int under 'a'"),
        (tensor_of(12, (13,), (1,)), "ends at 13 of a storage of 12"),
        (tensor_of(12, (2, 2), (11, 1)), "ends at 13 of a storage of 12"),
        (tensor_of(12, (2,), (-1,), 5), "-1 is no size"),
        (tensor_of(12, (2, 2), (1,)), "strides"),
        (tensor_of(12, (12,), (1,), kind=b"LongStorage"), "torch.LongStorage"),
        (tensor_of(13, (13,), (1,)), "48 of the 52 bytes"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, pickled: bytes, reason: str) -> None:
    assert reason in refusal(one_tensor(tmp_path / "a.pth", pickled))


@pytest.mark.parametrize("kept", [0, 1, 40, 300, -30, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = write_checkpoint(tmp_path / "a.pth", {"a": VALUES})
    path.write_bytes(path.read_bytes()[:kept])
    assert "not a complete PyTorch checkpoint" in refusal(path)


def test_a_storage_that_is_not_there_is_named_by_its_tensor(tmp_path: Path) -> None:
    pickled = tensor_of(12, (12,), (1,))
    assert "numbers of a are not in it" in refusal(write_archive(tmp_path / "a.pth", pickled, {}))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "a/data/0 in it is compressed"),
        ({"byteorder": b"big"}, "byte order 'big'"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, options: Mapping[str, Any], reason: str) -> None:
    pickled = tensor_of(12, (12,), (1,))
    assert reason in refusal(one_tensor(tmp_path / "a.pth", pickled, **options))


def test_a_checkpoint_from_before_zip_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps(119547037146038801333356, 2) + b"more")
    assert "before version 1.6" in refusal(path)
