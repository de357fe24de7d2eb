"""One damaged model is told of as its own problem; the list of models and the rest of it stay."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.client import Client
from daemon.language_files import LanguageFiles
from daemon.model_facts import facts_of
from daemon.models import entry_at
from tests.unit.image_folders import write_image_folder, write_json
from tests.unit.language import torch_files
from tests.unit.language_folders import write_folder


@pytest.fixture
def client(stage: Any) -> Iterator[Client]:
    with Client(stage.paths.socket) as opened:
        yield opened


def release(folder: Path, pickled: bytes) -> Path:
    write_json(folder / "params.json", {"dim": 4})
    (folder / "tokenizer.model").write_bytes(b"1")
    packed = zipfile.ZIP_DEFLATED
    torch_files.write_archive(folder / "consolidated.00.pth", pickled, {}, compression=packed)
    return folder


def npz(folder: Path, header: bytes) -> Path:
    write_json(folder / "params.json", {"dim": 4})
    with zipfile.ZipFile(folder / "weights.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        mark = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
        archive.writestr("a.npy", mark + header + bytes(64))
    return folder


def damaged(folder: Path, file: str, record: bytes) -> Path:
    data = bytearray((folder / file).read_bytes())
    place = data.index(record) + len(record)
    data[place : place + 20] = b"\xff" * 20
    (folder / file).write_bytes(data)
    return folder


def gguf(folder: Path) -> Path:
    folder.mkdir()
    axes = struct.pack("<QcI", 1, b"a", 240) + b"\xff" * 8 * 240 + struct.pack("<IQ", 0, 0)
    (folder / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + axes)
    return folder


def safetensors(folder: Path) -> Path:
    write_folder(folder)
    entry = {"dtype": "F32", "shape": [2**63 - 1] * 40_000, "data_offsets": [0, 4]}
    header = json.dumps({"a": entry}).encode()
    written = struct.pack("<Q", len(header)) + header + bytes(4)
    (folder / "model.safetensors").write_bytes(written)
    return folder


def piped(folder: Path, file: str) -> Path:
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    return folder


def image(folder: Path, **changes: Any) -> Path:
    write_image_folder(folder)
    for part, settings in changes.items():
        write_json(folder / part / "config.json", settings)
    return folder


ARRAY = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4), }"
DEEP = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"-" * 20_000 + b"1,)}"
CRASH = b"\x80\x02})" + b"\x85" * 4_000_000 + b"K\x01s."

# How each model is written, and what is said of it.
DAMAGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pth-packed": (
        lambda at: damaged(release(at, b"\x80\x02}." * 300), "consolidated.00.pth", b"data.pkl"),
        "is not a complete PyTorch checkpoint",
    ),
    "pth-crash": (lambda at: release(at, CRASH), "data.pkl cannot be read"),
    "pth-memo": (lambda at: release(at, b"\x80\x02}p4000000000\n."), "the opcode PUT"),
    "npz-packed": (
        lambda at: damaged(npz(at, ARRAY), "weights.npz", b"a.npy"),
        "is not a complete archive of arrays",
    ),
    "npz-deep": (lambda at: npz(at, DEEP), "a has the header"),
    "gguf-axes": (gguf, "a tensor has 240 axes"),
    "safetensors-axes": (safetensors, "a tensor has 40000 axes"),
    "layers": (
        lambda at: write_folder(at, num_hidden_layers=20_000),
        "config.json tells of 20000 layers, and the weights have 1",
    ),
    "config-pipe": (
        lambda at: piped(write_folder(at), "config.json"),
        "config.json cannot be read: it is a pipe and no regular file",
    ),
    "weights-pipe": (
        lambda at: piped(write_folder(at), "model.safetensors"),
        "model.safetensors cannot be read: it is a pipe and no regular file",
    ),
    "npz-pipe": (
        lambda at: piped(npz(at, ARRAY), "weights.npz"),
        "weights.npz cannot be read: it is a pipe and no regular file",
    ),
    "pth-pipe": (
        lambda at: piped(release(at, b"\x80\x02}."), "consolidated.00.pth"),
        "consolidated.00.pth cannot be read: it is a pipe and no regular file",
    ),
    "image-pipe": (lambda at: piped(image(at), "unet/config.json"), "it is a pipe"),
}


def test_the_list_of_models_survives_each_of_them(client: Client, stage: Any) -> None:
    root: Path = stage.paths.models
    write_folder(root / "good")
    image(root / "endless", unet={"sample_size": float("inf"), "block_out_channels": [1]})
    image(root / "vast", vae={"block_out_channels": [1] * 20_000})
    for name, (write, _) in DAMAGES.items():
        write(root / name)
    listed = {model["name"]: model for model in client.models()["models"]}
    for name in ("good", "endless", "vast"):
        assert listed[name]["state"] == "ready", listed[name]
    for name, (_, said) in DAMAGES.items():
        error = str(listed[name]["error"])
        assert listed[name]["state"] == "unusable"
        assert said in error, error[:500]
        assert len(error) < 500
        assert listed[name]["remedy"]


def test_a_socket_is_no_file_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "mine")
    (folder / "tokenizer.json").unlink()
    monkeypatch.chdir(folder)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("tokenizer.json")
        problem = facts_of(entry_at("mine", folder)).problem
    assert problem is not None
    assert "mine: tokenizer.json cannot be read: it is a socket" in problem.message


def test_what_was_not_foreseen_is_one_models_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entry = entry_at("mine", write_folder(tmp_path / "mine"))

    def fails(_self: LanguageFiles) -> Iterator[None]:
        yield from [1 // 0]  # type: ignore[misc]

    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(LanguageFiles, "facts", fails)
        problem = facts_of(entry).problem
    assert problem is not None
    assert "for a reason that was not foreseen: ZeroDivisionError" in problem.message
    assert "the daemon's log has the details" in str(problem.remedy)
    assert "ZeroDivisionError" in caplog.text
    assert facts_of(entry).problem is None


def test_a_file_that_has_gone_meanwhile_is_told_of(tmp_path: Path) -> None:
    folder = gguf(tmp_path / "mine")
    entry = entry_at("mine", folder)
    (folder / "a.gguf").unlink()
    problem = facts_of(entry).problem
    assert problem is not None
    assert problem.message == "mine is incomplete: it has no GGUF file"
