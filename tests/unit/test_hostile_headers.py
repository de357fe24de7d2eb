"""Files made to crash, freeze or fill the process that reads their headers are refused at once."""

from __future__ import annotations

import json
import random
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.errors import ModelError
from daemon.gguf_header import read_gguf_header
from daemon.npz_header import read_npz_header
from daemon.safetensors_header import read_safetensors_header
from daemon.tensor_sizes import MOST_SIZE, checked_shape
from daemon.torch_header import read_torch_header
from daemon.torch_pickle import read_tensor_places
from tests.unit.language.torch_files import (
    index,
    number,
    sizes,
    storage,
    tensor,
    text,
    write_archive,
)
from tests.unit.limited import messages

START = b"\x80\x02"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
MANY = 3_900_000

PICKLES: dict[str, tuple[bytes, str]] = {
    "deep tuple as a key": (START + b"})" + b"\x85" * MANY + b"K\x01s.", "nested deeper"),
    "doubled tuple as a key": (START + b"})" + b"2\x86" * 60 + b"K\x01s.", "opcode DUP"),
    "tuple doubled by memo": (
        START + b")q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"Q.",
        "nested deeper",
    ),
    "long tuple": (START + b"(" + b"K\x01" * 100_000 + b"t.", "a tuple of 100000 values"),
    "memo in gigabytes": (START + b"}p400000000\n.", "opcode PUT"),
    "memo beyond memory": (START + b"}p4000000000\n.", "opcode PUT"),
    "binary memo": (START + b"}r\xff\xff\xff\xee.", "under the number 4009754623"),
    "many dictionaries": (START + b"}" * MANY + b".", "more than 1048576 opcodes"),
    "many marks": (START + b"(" * MANY + b".", "more than 1048576 opcodes"),
    "deep dictionaries": (
        START + b"}" + (text("a") + b"}") * 200_000 + b"s" * 200_000 + b".",
        "holds a dict under 'a'",
    ),
    "itself": (START + b"}q\x00" + text("a") + b"h\x00s.", "holds a dict under 'a'"),
    "long bytes": (START + b"\x8e" + b"\xff" * 8 + b".", "data.pkl cannot be read"),
    "long array": (b"\x80\x05\x96" + b"\xff" * 7 + b"\x0fa.", "data.pkl cannot be read"),
    "extension": (START + b"\x82\x01.", "opcode EXT1"),
    "instance": (b"(S'touch'\nios\nsystem\n.", "opcode STRING"),
    "object": (START + b"(" + REBUILD + b"o.", "opcode OBJ"),
    "list": (START + b"].", "opcode EMPTY_LIST"),
    "persistent text": (b"Pa\n.", "opcode PERSID"),
    "number as a key": (START + b"}K\x01K\x01s.", "an item under a int"),
    "value from nothing": (START + b"\x86.", "more values from its stack"),
    "mark as a value": (START + b"(\x85.", "a mark for a value"),
    "no mark": (START + b"t.", "a mark that is not there"),
    "item of nothing": (START + text("a") + b"K\x01s.", "data.pkl cannot be read"),
    "forgotten value": (START + b"h\x07.", "data.pkl cannot be read"),
    "two values": (START + b"}}.", "ends with 2 values"),
    "no name": (START + b"K\x01K\x02\x93.", "by what is no text"),
    "call of a number": (START + b"K\x01)R.", "calls a int"),
    "call without a tensor": (START + REBUILD + b")R.", "_rebuild_tensor_v2 with 0 arguments"),
    "call of a type": (START + b"ctorch\nFloatStorage\n)R.", "FloatStorage with 0 arguments"),
    "storage of a text": (START + text("storage") + b"Q.", "names a storage otherwise"),
    "storage of a named type": (
        START + b"(" + text("storage") + text("F32") + text("0") + text("cpu") + number(1) + b"tQ.",
        "storage of an unknown type",
    ),
    "negative storage": (
        index({"a": tensor(storage("0", b"FloatStorage", -1), (1,), (1,))}),
        "-1 is no size",
    ),
    "many axes": (
        index({"a": tensor(storage("0", b"FloatStorage", 4), (1,) * 9, (1,) * 9)}),
        "a tensor has 9 axes",
    ),
    "repeated numbers": (
        index({"a": tensor(storage("0", b"FloatStorage", 4), (2**31 - 1,), (0,))}),
        "of a storage of 4",
    ),
    "huge number": (
        START + b"(" + b"\x8a\xff" + b"\x7f" * 255 + sizes((1,)) + b"t.",
        "is no checkpoint of weights: it holds a tuple",
    ),
}


def test_no_pickle_is_too_much(tmp_path: Path) -> None:
    files = [
        write_archive(tmp_path / f"{number}.pth", pickled, {"0": bytes(16)})
        for number, (pickled, _) in enumerate(PICKLES.values())
    ]
    found = messages("torch_header.read_torch_header", *files)
    for (case, (_, said)), message in zip(PICKLES.items(), found, strict=True):
        assert said in message, case


def test_an_index_that_unpacks_to_far_more_is_not_unpacked(tmp_path: Path) -> None:
    file = write_archive(
        tmp_path / "c.pth", b"}" * 60 * 2**20, {}, compression=zipfile.ZIP_DEFLATED
    )
    (message,) = messages("torch_header.read_torch_header", file)
    assert "data.pkl has 62914560 bytes; at most 4194304 are read" in message


def damaged(file: Path, record: str) -> Path:
    """Overwrite the packed bytes of a record."""
    data = bytearray(file.read_bytes())
    place = data.index(record.encode()) + len(record)
    data[place : place + 20] = b"\xff" * 20
    file.write_bytes(data)
    return file


def write_npz(file: Path, header: str, **options: Any) -> Path:
    encoded = header.encode()
    entry = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded + bytes(64)
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("a.npy", entry)
    return file


def described(shape: str, kind: str = "<f4") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"


SHAPES = {
    "(" + "-" * 20000 + "1, 4)": "a has the header",
    "(-4, -4)": "a has the header",
    "(True, 16)": "a has the header",
    "(4.0, 4)": "a has the header",
    "5": "a has the header",
    "(4, 4" * 9000: "a has the header",
    "(4, 4)" + " " * 60_000 + "x": "a has the header",
    "(4, 4), " + "," * 60_000: "a has the header",
    "(" + " " * 60_000 + "x": "a has the header",
    "(4, , 4)": "not a complete archive of arrays",
    "(9999999999999999999, 9999999999999)": "is no size",
    "(" + "9" * 4000 + ", 1)": "is no size",
    "(" + "9" * 60000 + ", 1)": "not a complete archive of arrays",
    "(281474976710656, 281474976710656)": "elements are read",
    "(" + "1, " * 10_000 + ")": "a tensor has 10000 axes",
}


def test_no_header_of_an_array_is_too_much(tmp_path: Path) -> None:
    files = [
        write_npz(tmp_path / f"{number}.npz", described(shape))
        for number, shape in enumerate(SHAPES)
    ]
    found = messages("npz_header.read_npz_header", *files)
    for (shape, said), message in zip(SHAPES.items(), found, strict=True):
        assert said in message, shape[:80]
        assert len(message) < 500


def test_damaged_packed_records_are_told_of(tmp_path: Path) -> None:
    packed: dict[str, Any] = {"compression": zipfile.ZIP_DEFLATED}
    npz = damaged(write_npz(tmp_path / "a.npz", described("(4, 4)"), **packed), "a.npy")
    with pytest.raises(ModelError, match="mine is not a complete archive of arrays"):
        read_npz_header(npz, name="mine")
    pth = write_archive(tmp_path / "c.pth", b"\x80\x02}." * 300, {}, **packed)
    with pytest.raises(ModelError, match="mine is not a complete PyTorch checkpoint"):
        read_torch_header(damaged(pth, "data.pkl"), name="mine")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing_is_not_unpacked(tmp_path: Path, method: int) -> None:
    """LZMA's header says how much memory its reader has to reserve."""
    file = write_npz(tmp_path / "a.npz", described("(4, 4)"), compression=method)
    with pytest.raises(ModelError, match=f"a.npy in it is packed by the method {method}"):
        read_npz_header(file)


def test_an_encrypted_record_is_told_of(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", described("(4, 4)"))
    data = bytearray(file.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"a\.npy in it is encrypted"):
        read_npz_header(file)


def test_an_endless_directory_is_not_read(tmp_path: Path) -> None:
    """The archive's last record says how long its directory is: 64 MiB of a sparse file."""
    file, length = tmp_path / "a.npz", 2**26
    with file.open("wb") as opened:
        opened.truncate(length)
        opened.seek(length)
        opened.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, length, 0, 0))
    (message,) = messages("npz_header.read_npz_header", file)
    assert "its directory has 67108864 bytes; at most 4194304 are read" in message


def gguf_text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf(*, tensors: int, values: int, rest: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + rest


def gguf_tensor(axes: int, size: bytes, offset: int = 0) -> bytes:
    return gguf_text(b"a") + struct.pack("<I", axes) + size * axes + struct.pack("<IQ", 0, offset)


def gguf_value(kind: int, rest: bytes, key: bytes = b"general.alignment") -> bytes:
    return gguf_text(key) + struct.pack("<I", kind) + rest


HUGE = b"\xff" * 8
TEXTS, ARRAYS = 8, 9

GGUFS: dict[str, tuple[bytes, str]] = {
    "many axes": (gguf(tensors=1, values=0, rest=gguf_tensor(240, HUGE)), "has 240 axes"),
    "endless axes": (
        gguf(tensors=1, values=0, rest=gguf_tensor(100_000, HUGE)),
        "has 100000 axes",
    ),
    "huge axes": (gguf(tensors=1, values=0, rest=gguf_tensor(8, HUGE)), "is no size"),
    "huge product": (
        gguf(tensors=1, values=0, rest=gguf_tensor(8, struct.pack("<Q", 2**48))),
        "elements are read",
    ),
    "huge offset": (
        gguf(tensors=1, values=0, rest=gguf_tensor(1, struct.pack("<Q", 1), 2**64 - 1)),
        "is no size",
    ),
    "endless tensors": (gguf(tensors=2**60, values=0, rest=b""), "more than 4194304 entries"),
    "endless settings": (gguf(tensors=0, values=2**60, rest=b""), "more than 4194304 entries"),
    "deep arrays": (
        gguf(
            tensors=0,
            values=1,
            rest=gguf_value(ARRAYS, struct.pack("<IQ", ARRAYS, 1) * 100_000),
        ),
        "not a complete GGUF file",
    ),
    "endless texts": (
        gguf(
            tensors=0,
            values=1,
            rest=gguf_value(ARRAYS, struct.pack("<IQ", TEXTS, 5_000_000) + bytes(40_000_000)),
        ),
        "more than 4194304 entries",
    ),
    "long text": (
        gguf(tensors=0, values=1, rest=gguf_value(TEXTS, gguf_text(bytes(2**26 + 1)), key=b"k")),
        "more than 67108864 bytes",
    ),
    "text as alignment": (
        gguf(tensors=0, values=1, rest=gguf_value(TEXTS, gguf_text(b"9" * 4300))),
        "general.alignment is '999",
    ),
    "endless alignment": (
        gguf(tensors=0, values=1, rest=gguf_value(6, struct.pack("<f", float("inf")))),
        "general.alignment is 'inf'",
    ),
}


def test_no_gguf_header_is_too_much(tmp_path: Path) -> None:
    files = []
    for case, (data, _) in GGUFS.items():
        files.append(tmp_path / f"{case}.gguf")
        files[-1].write_bytes(data)
    found = messages("gguf_header.read_gguf_header", *files)
    for (case, (_, said)), message in zip(GGUFS.items(), found, strict=True):
        assert said in message, case
        assert len(message) < 500


def written(file: Path, entry: Mapping[str, Any]) -> Path:
    header = json.dumps({"a": entry}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return file


def declared(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes


ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "many axes": (declared(shape=[2**63 - 1] * 40_000), "has 40000 axes"),
    "huge axis": (declared(shape=[10**4200]), "a number of 13953 bits is no size"),
    "huge product": (declared(shape=[2**48] * 8), "elements are read"),
    "negative": (declared(shape=[-1, -1]), "-1 is no size"),
    "true": (declared(shape=[True]), "a bool is no size"),
    "text": (declared(shape="44"), "a str is no size"),
    "huge offset": (declared(data_offsets=[10**4200, 10**4200 + 4]), "is no size"),
    "object as a type": (declared(dtype={"F32": 1}), "the type of a is"),
}


def test_no_safetensors_header_is_too_much(tmp_path: Path) -> None:
    files = [
        written(tmp_path / f"{case}.safetensors", entry) for case, (entry, _) in ENTRIES.items()
    ]
    found = messages("safetensors_header.read_safetensors_header", *files)
    for (case, (_, said)), message in zip(ENTRIES.items(), found, strict=True):
        assert said in message, case
        assert len(message) < 500


def test_a_header_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    file, length = tmp_path / "a.safetensors", 2**30
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", length))
        opened.truncate(length + 8)
    (message,) = messages("safetensors_header.read_safetensors_header", file)
    assert "a header of 1073741824 bytes; at most 16777216 are read" in message


def test_shapes_of_real_tensors_are_taken() -> None:
    assert checked_shape([]) == ()
    assert checked_shape((0, 2**40)) == (0, 2**40)
    assert checked_shape([152_064, 8_192]) == (152_064, 8_192)
    with pytest.raises(ValueError, match="elements are read"):
        checked_shape([MOST_SIZE, 2])


def read_pickle(file: Path) -> object:
    return read_tensor_places(file.name, file.read_bytes())


READERS: dict[str, Callable[[Path], object]] = {
    ".pkl": read_pickle,
    ".pth": read_torch_header,
    ".npz": read_npz_header,
    ".gguf": read_gguf_header,
    ".safetensors": read_safetensors_header,
}


@pytest.mark.parametrize("suffix", READERS)
def test_a_file_with_any_byte_changed_is_read_or_refused(tmp_path: Path, suffix: str) -> None:
    """Nothing but ``ModelError`` comes of 500 random damages."""
    file = tmp_path / f"m{suffix}"
    whole, chance = whole_file(file), random.Random(suffix)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        file.write_bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
        try:
            READERS[suffix](file)
        except ModelError as error:
            assert error.remedy


def whole_file(file: Path) -> bytes:
    pickled = index({"a": tensor(storage("0", b"HalfStorage", 4), (2, 2), (2, 1))})
    if file.suffix == ".pkl":
        file.write_bytes(pickled)
    elif file.suffix == ".pth":
        write_archive(file, pickled, {"0": bytes(8)})
    elif file.suffix == ".npz":
        np.savez_compressed(file, a=np.zeros((2, 3), np.float32), b=np.zeros(4, np.float16))
    elif file.suffix == ".gguf":
        value = gguf_value(4, struct.pack("<I", 32))
        file.write_bytes(
            gguf(tensors=1, values=1, rest=value + gguf_tensor(2, struct.pack("<Q", 2)) + bytes(64))
        )
    else:
        written(file, declared())
    return file.read_bytes()
