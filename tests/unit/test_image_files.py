"""What an image model lacks is named before a job is queued."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.errors import ModelError
from daemon.image_facts import ImageFacts, image_facts
from daemon.image_files import MFLUX_PIPELINES, ImageFolder, check_checkpoint
from tests.unit.image_folders import (
    CHECKPOINT,
    INDEX,
    cut_short,
    write_checkpoint,
    write_image_folder,
    write_json,
    write_tensors,
)

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "sd")


def refusal(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        ImageFolder(name="sd", path=folder).check()
    assert caught.value.remedy
    return caught.value


def test_a_whole_folder_passes(folder: Path) -> None:
    ImageFolder(name="sd", path=folder).check()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("vae", "sd is incomplete: it has no vae/"),
        ("scheduler", "sd is incomplete: it has no scheduler/"),
        ("tokenizer", "sd is incomplete: it has no tokenizer/"),
        ("model_index.json", "sd has no model_index.json"),
        ("unet/config.json", "sd is incomplete: it has no unet/config.json"),
        (
            "scheduler/scheduler_config.json",
            "sd is incomplete: it has no scheduler/scheduler_config.json",
        ),
        (
            "text_encoder/model.safetensors",
            "sd is incomplete: text_encoder/ needs weights in safetensors, and has none",
        ),
    ],
)
def test_a_missing_part_is_named(folder: Path, lost: str, message: str) -> None:
    (folder / lost).rename(folder.parent / "lost")
    assert refusal(folder).message == message


@pytest.mark.parametrize("place", [UNET, "text_encoder/model.safetensors"])
def test_weights_that_are_cut_short_are_named_with_their_folder(folder: Path, place: str) -> None:
    cut_short(folder / place)
    assert refusal(folder).message.startswith(f"sd: {place} is incomplete")
    (folder / place).write_bytes(b"")
    assert refusal(folder).message == f"sd: {place} is not a complete safetensors file"


@pytest.mark.parametrize(
    "place",
    ["model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"],
)
@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_file_that_is_no_json_object_is_named(folder: Path, place: str, text: str) -> None:
    (folder / place).write_text(text, encoding="latin-1")
    assert refusal(folder).message.startswith(f"sd: {place} ")


def test_an_index_without_networks_is_refused(folder: Path) -> None:
    write_json(folder / "model_index.json", {})
    assert refusal(folder).message == "sd: model_index.json names no parts of an image model"


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_a_configuration_without_widths_is_refused(folder: Path, part: str) -> None:
    write_json(folder / part / "config.json", {})
    assert f"sd: {part}/config.json has no block_out_channels" in refusal(folder).message


def test_pickled_weights_are_named(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "has only diffusion_pytorch_model.bin, a pickle" in refusal(folder).message


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionControlNetPipeline",
        "StableDiffusionInstructPix2PixPipeline",
        "StableDiffusionUpscalePipeline",
        "WuerstchenDecoderPipeline",
        None,
    ],
)
def test_a_pipeline_that_makes_other_pictures_is_refused_by_its_class(
    folder: Path, name: str | None
) -> None:
    write_json(folder / "model_index.json", {**INDEX, "_class_name": name})
    error = refusal(folder)
    assert str(name) in error.message
    assert "what can be used is Stable Diffusion 1.x, 2.x and SDXL" in error.message


def test_a_part_that_steers_is_named(folder: Path) -> None:
    index = {**INDEX, "controlnet": ["diffusers", "ControlNetModel"]}
    write_json(folder / "model_index.json", index)
    assert "with the part controlnet" in refusal(folder).message


def test_a_pipeline_without_text_encoder_is_refused(folder: Path) -> None:
    write_json(folder / "model_index.json", {**INDEX, "text_encoder": [None, None]})
    assert refusal(folder).message == "sd: model_index.json names no text encoder"


def test_the_refiner_is_called_so(folder: Path) -> None:
    index = {**INDEX, "text_encoder": [None, None], "text_encoder_2": ["transformers", "CLIP"]}
    write_json(folder / "model_index.json", index)
    assert refusal(folder).message.startswith("sd is SDXL's refiner")


def mflux_folder(folder: Path, kind: str) -> Path:
    """Write what ``mflux-save`` writes, with what docs/mflux.md has people copy into it."""
    parts = {name: ["diffusers", "C"] for name in ("transformer", "vae", "text_encoder")}
    index = {"_class_name": kind, **parts, "scheduler": ["diffusers", "C"]}
    write_json(folder / "model_index.json", index)
    write_json(folder / "transformer" / "config.json", {"num_layers": 5})
    write_json(folder / "scheduler" / "scheduler_config.json", {})
    for part in parts:
        write_tensors(folder / part / "0.safetensors", "x")
    return folder


@pytest.mark.parametrize("kind", MFLUX_PIPELINES)
def test_a_folder_of_mflux_save_passes(tmp_path: Path, kind: str) -> None:
    ImageFolder(name="m", path=mflux_folder(tmp_path / "m", kind)).check()


def test_an_autoencoder_of_mflux_may_name_its_widths_otherwise(tmp_path: Path) -> None:
    folder = mflux_folder(tmp_path / "m", "QwenImagePipeline")
    (folder / "vae" / "0.safetensors").rename(folder / "vae/diffusion_pytorch_model.safetensors")
    write_json(folder / "vae" / "config.json", {"base_dim": 96, "dim_mult": [1, 2, 4, 4]})
    ImageFolder(name="m", path=folder).check()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("vae", "sd is incomplete: it has no vae/"),
        ("transformer/config.json", "sd is incomplete: it has no transformer/config.json"),
        ("transformer/0.safetensors", "sd is incomplete: transformer/ needs weights"),
    ],
)
def test_what_mflux_needs_is_named(tmp_path: Path, lost: str, message: str) -> None:
    folder = mflux_folder(tmp_path / "m", MFLUX_PIPELINES[0])
    (folder / lost).rename(tmp_path / "lost")
    assert refusal(folder).message.startswith(message)


def test_a_truncated_file_of_mflux_is_named(tmp_path: Path) -> None:
    folder = mflux_folder(tmp_path / "m", MFLUX_PIPELINES[0])
    cut_short(folder / "vae" / "0.safetensors")
    assert "vae/0.safetensors" in refusal(folder).message


def test_an_index_cannot_name_a_place_elsewhere(folder: Path) -> None:
    index = {**INDEX, "../secret": ["a", "b"], "..": ["a", "b"], "/etc": ["a", "b"]}
    write_json(folder / "transformer" / "config.json", {})
    for kind in ("StableDiffusionPipeline", MFLUX_PIPELINES[0]):
        write_json(folder / "model_index.json", {**index, "_class_name": kind})
        ImageFolder(name="sd", path=folder).check()


# Shards


def shard(folder: Path) -> Path:
    """Replace the UNet's weights by two shards and their index; return the second."""
    (folder / UNET).unlink()
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        write_tensors(folder / "unet" / name, name)
    weights = {"weight_map": {f"tensor.{name}": name for name in names}}
    write_json(folder / "unet" / "diffusion_pytorch_model.safetensors.index.json", weights)
    return folder / "unet" / names[1]


def test_every_shard_is_looked_at(folder: Path) -> None:
    last = shard(folder)
    ImageFolder(name="sd", path=folder).check()
    cut_short(last)
    assert refusal(folder).message.startswith(f"sd: unet/{last.name} is incomplete")
    last.unlink()
    assert refusal(folder).message == f"sd is incomplete: it has no unet/{last.name}"


@pytest.mark.parametrize("weights", [{}, {"weight_map": []}])
def test_an_index_of_shards_that_names_none_is_refused(folder: Path, weights: object) -> None:
    shard(folder)
    place = "unet/diffusion_pytorch_model.safetensors.index.json"
    write_json(folder / place, weights)
    assert refusal(folder).message == f"sd: {place} has no weight_map"


def test_a_shard_lies_beside_its_index(folder: Path) -> None:
    shard(folder)
    weights = {"weight_map": {"tensor": "../vae/diffusion_pytorch_model.safetensors"}}
    write_json(folder / "unet/diffusion_pytorch_model.safetensors.index.json", weights)
    assert "it has no unet/../vae/" in refusal(folder).message


# Single files


def test_a_whole_checkpoint_passes(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "sd" / "sd.safetensors")
    for path in (file, file.parent):
        check_checkpoint("sd", path)


@pytest.mark.parametrize(("lost", "part"), [(0, "UNet"), (1, "VAE"), (2, "text encoder")])
def test_a_part_that_a_checkpoint_lacks_is_named(tmp_path: Path, lost: int, part: str) -> None:
    rest = [tensor for place, tensor in enumerate(CHECKPOINT) if place != lost]
    file = write_checkpoint(tmp_path / "sd.safetensors", *rest)
    with pytest.raises(ModelError, match=rf"sd\.safetensors has no {part}$"):
        check_checkpoint("sd", file)


def test_a_sidecar_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = write_checkpoint(tmp_path / "sd.safetensors")
    file.with_suffix(".json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"sd: sd\.json cannot be read"):
        check_checkpoint("sd", file)


# What a model is said to be


def test_a_single_file_tells_its_family_alone(tmp_path: Path) -> None:
    sd1 = write_checkpoint(tmp_path / "sd1.safetensors")
    sd2 = write_checkpoint(tmp_path / "sd2.safetensors", "cond_stage_model.model.ln_final.bias")
    sdxl = write_checkpoint(
        tmp_path / "sdxl.safetensors",
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias",
        "conditioner.embedders.1.model.ln_final.bias",
    )
    other = write_checkpoint(tmp_path / "other.safetensors", "first_stage_model.encoder.bias")
    assert [image_facts(file).family for file in (sd1, sd2, sdxl, other)] == [
        "SD 1.x",
        "SD 2.x",
        "SDXL",
        None,
    ]
    assert image_facts(sd1) == ImageFacts(family="SD 1.x")


@pytest.mark.parametrize("channels", [None, 3, "wide"])
def test_of_a_model_that_cannot_be_read_nothing_is_said(folder: Path, channels: object) -> None:
    assert image_facts(folder).native_size == (64, 64)
    write_json(folder / "vae" / "config.json", {"block_out_channels": channels})
    write_json(folder / "unet" / "config.json", {"sample_size": "wide"})
    assert image_facts(folder) == ImageFacts()
    (folder / "model_index.json").unlink()
    assert image_facts(folder) == ImageFacts()
