"""Model names stand for folders under the roots, and never lead out of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.errors import ModelError
from daemon.model_kinds import check_model, why_unusable
from daemon.models import ModelRoots, is_bundled, is_hub_id
from tests.unit.image_folders import cut_short, write_checkpoint, write_image_folder
from tests.unit.language_folders import write_folder, write_gguf


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
    make(root / "examples", "weights.00.npz", "params.json", config={})
    make(root / "both", "model.safetensors", "consolidated.safetensors", "params.json", config={})
    make(root / "release", "consolidated.safetensors")
    make(root / "ggml", "a.gguf", config={})
    make(root / "adapter", "adapters.npz")
    make(root / "empty", config={})
    (root / "mlx" / "more.json").write_bytes(b"12")
    formats = {entry.name: entry.format for entry in ModelRoots([root]).list()}
    assert formats == {
        "adapter": "unknown",
        "both": "hf",
        "empty": "hf",
        "examples": "npz",
        "ggml": "gguf",
        "gguf": "gguf",
        "hf": "hf",
        "mlx": "mlx",
        "odd": "hf",
        "original": "original",
        "pictures": "diffusers",
        "plain": "npz",
        "release": "original",
    }


def test_what_a_name_can_be() -> None:
    assert is_bundled("smollm2")
    assert not is_bundled("smollm3")
    assert is_hub_id("mlx-community/Qwen2.5-0.5B")
    assert not any(is_hub_id(name) for name in ("smollm2", "a/b/c", "../b", "a/..", "a/b..c", "a/"))
    assert not any(is_hub_id(name) for name in ("models/sd.safetensors", "models/llm.gguf"))


def formats(root: Path) -> dict[str, str]:
    return {entry.name: entry.format for entry in ModelRoots([root]).list()}


def test_image_models_are_told_by_their_index_and_their_tensors(root: Path) -> None:
    write_image_folder(root / "sd")
    write_image_folder(root / "org" / "sd")
    write_checkpoint(root / "anything.safetensors")
    write_checkpoint(root / "folder" / "anything.safetensors", "first_stage_model.encoder.bias")
    write_checkpoint(root / "style.safetensors", "lora_unet_mid.lora_up.weight")
    write_checkpoint(root / "llm" / "model.safetensors")
    make(root / "llm", config={"model_type": "llama"})
    make(root / "damaged", "a.safetensors")
    write_checkpoint(root / "two" / "a.safetensors")
    write_checkpoint(root / "two" / "b.safetensors")
    assert formats(root) == {
        "anything": "single-file",
        "damaged": "unknown",
        "folder": "single-file",
        "llm": "hf",
        "org/sd": "diffusers",
        "sd": "diffusers",
        "style": "unknown",
        "two": "unknown",
    }


def test_a_model_below_an_organisations_folder_keeps_its_name(root: Path) -> None:
    make(root / "org" / "name", "model.safetensors", config={})
    assert formats(root) == {"org/name": "hf"}


def test_a_link_inside_a_part_does_not_lead_out(root: Path) -> None:
    secret = make(root.parent / "secret", "x.safetensors")
    unet = write_image_folder(root / "sd") / "unet"
    (unet / "more.safetensors").symlink_to(secret / "x.safetensors")
    roots = ModelRoots([root])
    assert roots.find("sd") is None
    with pytest.raises(ModelError, match=r"more\.safetensors is a link that leaves the model root"):
        roots.check_links("sd")


def test_a_diffusers_cache_is_a_root(root: Path) -> None:
    cached = root / "models--org--sd"
    make(cached / "blobs", "abc")
    snapshot = make(cached / "snapshots" / "1111" / "unet").parent
    (snapshot / "model_index.json").symlink_to("../../blobs/abc")
    assert ModelRoots([root]).find("org/sd") is None
    (snapshot / "unet" / "model.safetensors").symlink_to("../../../blobs/abc")
    assert ModelRoots([root]).find("org/sd") == snapshot


def test_users_models_come_before_those_that_are_shipped(root: Path, tmp_path: Path) -> None:
    shipped = write_image_folder(tmp_path / "shipped" / "shapes").parent
    roots = ModelRoots([root, shipped])
    assert roots.find("shapes") == shipped / "shapes"
    own = write_image_folder(root / "shapes")
    assert roots.find("shapes") == own


def refused(root: Path, kind: str, name: str) -> ModelError:
    models = ModelRoots([root])
    path = models.find(name)
    assert path is not None
    with pytest.raises(ModelError) as caught:
        check_model(kind, name, path, models)
    return caught.value


def test_models_of_the_right_kind_pass(root: Path) -> None:
    sd, llm = write_image_folder(root / "sd"), write_gguf(root / "llm.gguf")
    file = write_checkpoint(root / "file.safetensors")
    models = ModelRoots([root])
    for kind, name, path in (
        ("diffuse", "sd", sd),
        ("diffuse", "file", file),
        ("train", "llm", llm),
    ):
        check_model(kind, name, path, models)
    check_model("noop", "llm", llm, models)


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_an_image_model_answers_no_prompts(root: Path, kind: str) -> None:
    write_image_folder(root / "sd")
    write_gguf(root / "llama.gguf")
    error = refused(root, kind, "sd")
    assert error.message == f"sd is an image model (diffusers), and {kind} needs a language model"
    assert error.remedy == (
        "language models here: llama, smollm2; for pictures of sd: "
        "studioq diffuse PROMPT --model sd"
    )


def test_a_language_model_makes_no_pictures(root: Path) -> None:
    write_gguf(root / "llama.gguf")
    error = refused(root, "diffuse", "llama")
    assert error.message == "llama is a language model (gguf), and diffuse needs an image model"
    assert "there are no image models here; studioq models path" in str(error.remedy)
    write_image_folder(root / "sd")
    write_checkpoint(root / "file.safetensors")
    assert refused(root, "diffuse", "llama").remedy == "image models here: file, sd"


def test_what_is_no_image_model_says_why(root: Path) -> None:
    write_checkpoint(root / "style.safetensors", "lora_unet_mid.lora_up.weight")
    make(root / "two", "a.safetensors", "b.safetensors")
    make(root / "cut", "a.safetensors")
    assert "its tensors are called 'lora_unet_mid" in refused(root, "diffuse", "style").message
    assert "neither a model_index.json nor one" in refused(root, "diffuse", "two").message
    assert "not a complete safetensors" in refused(root, "diffuse", "cut").message


@pytest.mark.parametrize("kind", ["train", "infer", "convert"])
def test_a_broken_language_model_is_refused_with_its_reason(root: Path, kind: str) -> None:
    cut_short(write_gguf(root / "cut.gguf"))
    write_folder(root / "mute").joinpath("tokenizer.json").unlink()
    make(root / "nothing", "a.safetensors", "b.safetensors")
    write_gguf(root / "llama.gguf")
    assert "cut is incomplete: it has" in refused(root, kind, "cut").message
    mute = refused(root, kind, "mute")
    assert (mute.field, mute.message[:21]) == ("model", "mute has no tokenizer")
    nothing = refused(root, kind, "nothing")
    assert nothing.message.startswith("nothing is no language model: it has neither a config.json")
    assert nothing.remedy == "language models here: llama, smollm2"


def test_remedies_name_only_models_that_can_be_used(root: Path) -> None:
    write_gguf(root / "llama.gguf")
    write_image_folder(root / "whole")
    cut_short(write_image_folder(root / "cut") / "vae" / "diffusion_pytorch_model.safetensors")
    write_checkpoint(root / "half.safetensors", "first_stage_model.encoder.bias")
    assert refused(root, "diffuse", "llama").remedy == "image models here: whole"


def test_why_a_model_cannot_be_used_is_told(root: Path) -> None:
    write_image_folder(root / "whole")
    write_gguf(root / "llama.gguf")
    (write_image_folder(root / "text") / "unet" / "config.json").write_text("{", encoding="utf-8")
    cut_short(write_checkpoint(root / "cut.safetensors"))
    write_checkpoint(root / "style.safetensors", "lora_unet_mid.lora_up.weight")
    reasons = {entry.name: why_unusable(entry) for entry in ModelRoots([root]).list()}
    assert reasons.pop("whole") is None
    assert reasons.pop("llama") is None
    assert "unet/config.json cannot be read" in str(reasons["text"])
    assert "cut.safetensors is incomplete" in str(reasons["cut"])
    assert "its tensors are called 'lora_unet_mid" in str(reasons["style"])
