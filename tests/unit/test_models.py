"""Model names stand for folders under the roots, and never lead out of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.models import ModelRoots, is_bundled, is_hub_id


def make(folder: Path, *files: str, config: object = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).write_bytes(b"1234")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "models"
    made.mkdir()
    return made


def test_folders_and_files_are_found_by_name(root: Path) -> None:
    make(root, "tiny.Q4_1.gguf", "sd.safetensors")
    plain, nested = make(root / "llama", "a.safetensors"), make(root / "ada/mine", "a.gguf")
    roots = ModelRoots([root])
    assert roots.find("llama") == plain
    assert roots.find("ada/mine") == nested
    assert roots.find("tiny.Q4_1") == root / "tiny.Q4_1.gguf"
    assert roots.find("tiny.Q4_1.gguf") == root / "tiny.Q4_1.gguf"
    assert roots.find("sd") == root / "sd.safetensors"
    assert roots.find("ada") is None
    assert roots.find("nothing") is None


def test_the_first_root_wins(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make(other / "a", "x.gguf")
    make(other / "b", "x.gguf")
    first = make(root / "a", "x.gguf")
    roots = ModelRoots([root, other, tmp_path / "absent"])
    assert roots.find("a") == first
    assert roots.find("b") == other / "b"
    assert [entry.name for entry in roots.list()] == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["..", "../secret", "a/../../secret", "/etc", "", "a//b", ".x", "a\0"]
)
def test_names_do_not_lead_out(root: Path, name: str) -> None:
    make(root.parent / "secret", "x.gguf")
    assert ModelRoots([root]).find(name) is None


def test_links_do_not_lead_out(root: Path) -> None:
    secret = make(root.parent / "secret", "x.gguf")
    (root / "link").symlink_to(secret)
    make(root / "mixed", "y.gguf")
    (root / "mixed" / "config.json").symlink_to(secret / "x.gguf")
    roots = ModelRoots([root])
    assert roots.find("link") is None
    assert roots.find("mixed") is None
    assert roots.list() == []


@pytest.mark.parametrize("hub", [".", "hub"])
def test_a_hugging_face_cache_is_a_root(root: Path, hub: str) -> None:
    cached = root / hub / "models--org--name"
    make(cached / "blobs", "abc")
    for revision in ("1111", "2222"):
        snapshot = make(cached / "snapshots" / revision)
        (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    make(cached / "refs")
    (cached / "refs" / "main").write_text("1111", encoding="utf-8")
    roots = ModelRoots([root])
    assert roots.find("org/name") == root / hub / "models--org--name" / "snapshots" / "1111"
    assert [(entry.name, entry.bytes) for entry in roots.list()] == [("org/name", 4)]
    (cached / "refs" / "main").write_text("../../../..", encoding="utf-8")
    found = roots.find("org/name")
    assert found is not None
    assert found.parent.name == "snapshots"


def test_a_snapshot_that_is_not_complete_is_no_model(root: Path) -> None:
    make(root / "models--org--name" / "snapshots" / "1", config={})
    assert ModelRoots([root]).find("org/name") is None


def test_formats_are_guessed_by_their_files(root: Path) -> None:
    make(root / "gguf", "a.gguf")
    make(root / "hf", "a.safetensors", config={"model_type": "llama"})
    make(root / "mlx", "a.safetensors", config={"quantization": {"bits": 4}})
    make(root / "odd", "a.safetensors", config=[])
    make(root / "original", "consolidated.00.pth", "params.json")
    make(root / "pictures/unet", "a.safetensors")
    make(root / "pictures", "model_index.json")
    make(root / "plain", "weights.npz")
    (root / "mlx" / "more.json").write_bytes(b"12")
    formats = {entry.name: entry.format for entry in ModelRoots([root]).list()}
    assert formats == {
        "gguf": "gguf",
        "hf": "hf",
        "mlx": "mlx",
        "odd": "hf",
        "original": "original",
        "pictures": "diffusers",
        "plain": "unknown",
    }


def test_what_a_name_can_be() -> None:
    assert is_bundled("smollm2")
    assert not is_bundled("smollm3")
    assert is_hub_id("mlx-community/Qwen2.5-0.5B")
    assert not any(is_hub_id(name) for name in ("smollm2", "a/b/c", "../b", "a/..", "a/b..c", "a/"))
