"""What is wrong with a language model is told by its place, and what it is is told all the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from daemon.architectures import (
    GGUF_ARCHITECTURES,
    check_gguf_architecture,
    known_architectures,
)
from daemon.errors import ModelError
from daemon.model_facts import ModelFacts, facts_of
from daemon.models import entry_at
from tests.unit.image_folders import cut_short, write_checkpoint, write_image_folder, write_json
from tests.unit.language import torch_files
from tests.unit.language_folders import (
    EMBEDDINGS,
    PARAMETERS,
    TOKENS,
    arrays,
    write_folder,
    write_gguf,
    write_shards,
)


def facts(path: Path) -> ModelFacts:
    return facts_of(entry_at("ada/mine", path))


def problem(path: Path) -> ModelError:
    found = facts(path).problem
    assert found is not None
    assert found.remedy
    return found


def counted(found: ModelFacts) -> tuple[str | None, int, float]:
    assert found.count is not None
    return found.architecture, found.count.parameters, found.count.bits


def write_release(folder: Path, *names: str) -> Path:
    """Write a release with one ``.pth`` for each name; the embeddings are split by columns."""
    write_json(folder / "params.json", {"dim": 4})
    (folder / "tokenizer.model").write_bytes(b"1")
    for name in names:
        weights: dict[str, np.ndarray] = {
            "tok_embeddings.weight": np.zeros((8, 4 // len(names)), np.float16),
            "norm.weight": np.zeros(4, np.float16),
            "rope.freqs": np.zeros(2, np.float32),
        }
        torch_files.write_checkpoint(folder / name, weights)
    return folder


def write_npz(folder: Path, settings: str = "params.json") -> Path:
    write_json(folder / settings, {"dim": 4})
    (folder / "tokenizer.model").write_bytes(b"1")
    np.savez(folder / "weights.npz", **cast("Any", arrays()))
    return folder


def test_every_format_says_what_it_is(tmp_path: Path) -> None:
    assert counted(facts(write_folder(tmp_path / "hf"))) == ("llama", PARAMETERS, 16)
    assert counted(facts(write_shards(tmp_path / "shards"))) == ("llama", PARAMETERS, 16)
    assert counted(facts(write_npz(tmp_path / "npz"))) == ("llama", PARAMETERS, 16)
    assert counted(facts(write_gguf(tmp_path / "one.gguf"))) == ("llama", 256, 16)
    assert counted(facts(write_gguf(tmp_path / "in" / "m.gguf").parent)) == ("llama", 256, 16)
    release = write_release(tmp_path / "two", "consolidated.00.pth", "consolidated.01.pth")
    assert counted(facts(release)) == ("llama", 8 * 4 + 4, 16)
    assert counted(facts(write_image_folder(tmp_path / "sd"))) == ("SD 1.x", 12, 32)
    assert counted(facts(write_checkpoint(tmp_path / "sd.safetensors"))) == ("SD 1.x", 12, 32)
    for path in tmp_path.iterdir():
        assert facts(path).problem is None, path


def without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def changed(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder


def cut(folder: Path, name: str) -> Path:
    cut_short(folder / name)
    return folder


def changed_shape(folder: Path) -> Path:
    """Declare a matrix of more numbers than any machine has."""
    entry = {"dtype": "F16", "shape": [10**2000] * 3, "data_offsets": [0, 4]}
    header = json.dumps({"w": entry}).encode()
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(4)
    )
    return folder


SHARD = "model-00002-of-00003.safetensors"
PTH = "consolidated.00.pth"

BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no config": (
        lambda at: without(write_folder(at), "config.json"),
        "ada/mine is incomplete: it has no config.json",
    ),
    "bad config": (
        lambda at: changed(write_folder(at), "config.json", "{"),
        "ada/mine: config.json cannot be read: Expecting",
    ),
    "no object": (
        lambda at: changed(write_folder(at), "config.json", "[]"),
        "ada/mine: config.json is no JSON object",
    ),
    "no type": (
        lambda at: changed(write_folder(at), "config.json", "{}"),
        "ada/mine: config.json names no model_type",
    ),
    "strange type": (
        lambda at: write_folder(at, model_type="bert"),
        "ada/mine is a network of the type bert, which mlx-lm does not have",
    ),
    "no weights": (
        lambda at: without(write_folder(at), "model.safetensors"),
        "ada/mine has no weights: there is no model*.safetensors in it, no safetensors",
    ),
    "missing shard": (
        lambda at: without(write_shards(at), SHARD),
        f"ada/mine is incomplete: it has no {SHARD}",
    ),
    "short shard": (
        lambda at: cut(write_shards(at), SHARD),
        f"ada/mine: {SHARD} is incomplete: it has",
    ),
    "bad index": (
        lambda at: changed(write_shards(at), "model.safetensors.index.json", "{}"),
        "ada/mine: model.safetensors.index.json has no weight_map",
    ),
    "no tokenizer": (
        lambda at: without(write_folder(at), "tokenizer.json"),
        "ada/mine has no tokenizer: neither tokenizer.json nor tokenizer.model",
    ),
    "no params": (
        lambda at: without(write_release(at, PTH), "params.json"),
        "ada/mine is incomplete: it has no params.json",
    ),
    "missing part": (
        lambda at: without(write_release(at, PTH, "consolidated.01.pth"), PTH),
        f"ada/mine is incomplete: {PTH} is missing",
    ),
    "short part": (
        lambda at: cut(write_release(at, PTH), PTH),
        f"ada/mine: {PTH} is not a complete PyTorch checkpoint",
    ),
    "no pieces": (
        lambda at: without(write_release(at, PTH), "tokenizer.model"),
        "ada/mine has no tokenizer",
    ),
    "bad archive": (
        lambda at: cut(write_npz(at), "weights.npz"),
        "ada/mine: weights.npz is not a complete archive of arrays",
    ),
    "archive alone": (
        lambda at: without(write_npz(at), "params.json"),
        "ada/mine has arrays and neither config.json nor params.json",
    ),
    "short gguf": (
        lambda at: cut(write_gguf(at / "m.gguf").parent, "m.gguf"),
        "ada/mine: m.gguf is incomplete",
    ),
    "two gguf": (
        lambda at: write_gguf(write_gguf(at / "a.gguf").with_name("b.gguf")).parent,
        "ada/mine holds 2 GGUF files (a.gguf, b.gguf)",
    ),
    "gguf of what": (
        lambda at: write_gguf(at / "a.gguf", metadata={}).parent,
        "ada/mine names no general.architecture",
    ),
    "gguf of pictures": (
        lambda at: write_gguf(at / "a.gguf", metadata={"general.architecture": "clip"}).parent,
        "ada/mine is of the architecture 'clip', which is not supported as GGUF",
    ),
    "gguf without tokens": (
        lambda at: write_gguf(at / "a.gguf", metadata={"general.architecture": "llama"}).parent,
        "ada/mine (llama) holds no tokenizer",
    ),
    "gguf of experts": (
        lambda at: write_gguf(at / "a.gguf", metadata=TOKENS | {"llama.expert_count": 8}).parent,
        "ada/mine is a mixture of 8 experts",
    ),
    "gguf in parts": (
        lambda at: write_gguf(at / "a.gguf", metadata=TOKENS | {"split.count": 2}).parent,
        "ada/mine is one of the 2 files of its model",
    ),
    "odd alignment": (
        lambda at: write_gguf(at / "a.gguf", metadata={"general.alignment": "x"}).parent,
        "ada/mine: a.gguf is not a complete GGUF file: general.alignment is 'x'",
    ),
    "endless shape": (
        lambda at: changed_shape(write_folder(at)),
        "ada/mine: model.safetensors has an unreadable header: a number of 6644 bits is no size",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_told(tmp_path: Path, case: str) -> None:
    write, said = BROKEN[case]
    assert said in problem(write(tmp_path / "mine")).message


def test_pickles_and_other_names_are_told(tmp_path: Path) -> None:
    folder = without(write_folder(tmp_path / "mine"), "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"1")
    assert "its weights in pytorch_model.bin, a pickle, which is never read" in (
        problem(folder).message
    )
    (folder / "pytorch_model.bin").rename(folder / "other.safetensors")
    assert "(other.safetensors)" in problem(folder).message


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tokenizer.model.v3", "rename it to tokenizer.model"),
        ("tekken.json", "copy tokenizer.json"),
    ],
)
def test_a_tokenizer_of_another_name_is_told(tmp_path: Path, name: str, remedy: str) -> None:
    folder = write_release(tmp_path / "mine", PTH)
    (folder / "tokenizer.model").rename(folder / name)
    found = problem(folder)
    assert f"has its tokenizer in {name} alone" in found.message
    assert remedy in str(found.remedy)


def test_what_is_known_of_a_broken_model_is_told(tmp_path: Path) -> None:
    folder = without(write_folder(tmp_path / "mine"), "tokenizer.json")
    assert counted(facts(folder)) == ("llama", PARAMETERS, 16)
    (folder / "model.safetensors").unlink()
    found = facts(folder)
    assert (found.architecture, found.count) == ("llama", None)


def test_tied_embeddings_are_told_by_the_configuration(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = write_folder(tmp_path / "mine", tie_word_embeddings=True)
    weights = arrays()
    save_file(weights | {"lm_head.weight": weights[EMBEDDINGS]}, folder / "model.safetensors")
    assert counted(facts(folder)) == ("llama", PARAMETERS, 16)


def test_facts_are_remembered_while_the_files_stay(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine")
    first = facts(folder)
    assert facts(folder) is first
    os.utime(folder / "config.json", ns=(1, 1))
    assert facts(folder) is not first
    write_json(folder / "config.json", {"model_type": "qwen2"})
    assert facts(folder).architecture == "qwen2"
    shutil.rmtree(folder)
    write_gguf(folder / "a.gguf", metadata=TOKENS | {"general.architecture": "qwen3"})
    assert facts(folder).architecture == "qwen3"


def test_mlx_lms_networks_are_known_without_importing_it() -> None:
    known = known_architectures()
    assert {"llama", "mistral", "qwen3", "gemma3_text"} <= known
    assert "bert" not in known


def test_the_engine_refuses_the_same_gguf_files_with_the_same_words(tmp_path: Path) -> None:
    """The daemon may not import the engine, so each has a list of what can be read."""
    from workers.language.gguf.architectures import architecture_of
    from workers.language.gguf.file import open_file

    refusals = []
    for name in (*GGUF_ARCHITECTURES, "clip"):
        file = write_gguf(tmp_path / "mine", metadata=TOKENS | {"general.architecture": name})
        for check in (architecture_of, check_gguf_file):
            try:
                check(open_file(file))
            except ModelError as error:
                refusals.append((name, error.message, error.remedy))
    assert len(refusals) == 2
    assert refusals[0] == refusals[1]


def check_gguf_file(file: Any) -> None:
    check_gguf_architecture(file.name, file.architecture, file.metadata)


def test_a_conversion_of_mlx_is_read_at_its_bits(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = write_folder(tmp_path / "mine", quantization={"group_size": 64, "bits": 4})
    weights: dict[str, Any] = {
        "model.embed_tokens.weight": np.zeros((8, 16), np.uint32),
        "model.embed_tokens.scales": np.zeros((8, 2), np.float16),
        "model.embed_tokens.biases": np.zeros((8, 2), np.float16),
    }
    save_file(weights, folder / "model.safetensors")
    assert json.loads((folder / "config.json").read_bytes())["quantization"]["bits"] == 4
    assert counted(facts(folder)) == ("llama", 8 * 128, 4)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "mine")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n"
    (folder / name).write_text(pointer)
    refused = problem(folder)
    assert refused.message.startswith(f"ada/mine: {name} is a Git LFS pointer, not the file")
    assert "git lfs pull" in str(refused.remedy)
