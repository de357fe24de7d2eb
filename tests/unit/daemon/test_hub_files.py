"""Of a repository's files the needed ones are chosen, each weight once."""

from __future__ import annotations

import pytest

from daemon.errors import ModelError
from daemon.hub_files import wanted_files

WEIGHTS = "diffusion_pytorch_model"


def chosen(*files: str) -> set[str]:
    found = wanted_files("org/name", [(file, 1) for file in files])
    assert len({file for file, _ in found}) == len(found)
    return {file for file, _ in found}


def weights(*files: str) -> set[str]:
    """Return what is chosen of an image model's weights."""
    return {file for file in chosen("model_index.json", *files) if ".safetensors" in file}


def refused(*files: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        chosen(*files)
    return caught.value


def test_fp16_is_taken_where_every_network_has_it() -> None:
    plain = [f"unet/{WEIGHTS}.safetensors", f"vae/{WEIGHTS}.safetensors"]
    half = [f"unet/{WEIGHTS}.fp16.safetensors", f"vae/{WEIGHTS}.fp16.safetensors"]
    assert weights(*plain, *half) == set(half)
    assert weights(*plain, half[0]) == set(plain)
    assert weights(half[0], plain[1]) == {half[0], plain[1]}
    assert weights(*plain, *half, "text_encoder/model.safetensors") == {
        *plain,
        "text_encoder/model.safetensors",
    }
    assert weights(*plain, *half, "safety_checker/model.safetensors") == set(half)


def test_shards_come_with_their_index_unless_there_is_a_whole_file() -> None:
    for shards in (
        [
            f"unet/{WEIGHTS}.fp16-00001-of-00002.safetensors",
            f"unet/{WEIGHTS}.fp16-00002-of-00002.safetensors",
            f"unet/{WEIGHTS}.safetensors.index.fp16.json",
        ],
        [
            f"unet/{WEIGHTS}-00001-of-00002.fp16.safetensors",
            f"unet/{WEIGHTS}-00002-of-00002.fp16.safetensors",
            f"unet/{WEIGHTS}.fp16.safetensors.index.json",
        ],
    ):
        vae = f"vae/{WEIGHTS}.fp16.safetensors"
        assert weights(*shards, vae) == {*shards, vae}
        whole = f"unet/{WEIGHTS}.fp16.safetensors"
        assert weights(*shards, whole, vae) == {whole, vae}


def test_a_variant_of_its_own_is_taken_where_there_is_no_other() -> None:
    assert weights("unet/model.bf16.safetensors", "vae/model.safetensors") == {
        "unet/model.bf16.safetensors",
        "vae/model.safetensors",
    }
    assert weights("unet/model.odd.safetensors") == {"unet/model.odd.safetensors"}


def test_sdxl_and_flux_have_their_parts() -> None:
    files = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors",
        "tokenizer_2/vocab.json",
        "tokenizer_2/merges.txt",
        "tokenizer_2/spiece.model",
        "transformer/config.json",
        f"transformer/{WEIGHTS}.safetensors",
        "vae/config.json",
        f"vae/{WEIGHTS}.safetensors",
    ]
    others = [
        "sd_xl_base_1.0.safetensors",
        "text_encoder_2/model.onnx",
        "vae_1_0/config.json",
        f"vae_1_0/{WEIGHTS}.safetensors",
        "vae_encoder/model.onnx",
        "config.json",
        "unets/config.json",
    ]
    assert chosen(*files, *others) == set(files)


def test_a_network_with_pickles_alone_is_named() -> None:
    error = refused("model_index.json", "vae/model.safetensors", "unet/diffusion_pytorch_model.bin")
    assert error.message == "org/name has no safetensors weights of its unet"
    assert error.remedy
    assert "none of the networks" in refused("model_index.json", "a.safetensors").message


def test_language_models_come_in_one_format() -> None:
    assert chosen("config.json", "model.safetensors", "model.gguf", "a.bin", "README.md") == {
        "config.json",
        "model.safetensors",
    }
    assert "neither safetensors nor GGUF" in refused("pytorch_model.bin").message
    assert "2 models in it" in refused("a.gguf", "b.gguf").message


def test_a_repository_of_many_checkpoints_does_not_say_which() -> None:
    error = refused("anime.safetensors", "photo.safetensors", "photo.vae.pt")
    assert error.message == (
        "org/name has 2 models in it, and its name does not say which: "
        "anime.safetensors, photo.safetensors"
    )
    assert chosen("photo.safetensors", "README.md") == {"photo.safetensors"}
    shards = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    assert chosen(*shards) == shards
