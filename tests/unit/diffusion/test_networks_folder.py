"""Model folders: every form that libraries write is read, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from daemon.errors import ModelError
from tests.unit.diffusion import kept, tiny
from workers.diffusion.load import estimate_bytes, load_diffusion_model, read_components

UNET = "unet/diffusion_pytorch_model.safetensors"
ENCODER = "text_encoder/model.safetensors"
PROJECTION = "down_blocks.0.attentions.0.proj_in.weight"

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(image_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the folder ``sd1`` that a test may spoil."""
    return shutil.copytree(image_folder("sd1"), tmp_path / "model")


@pytest.fixture
def folder_xl(image_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the folder ``sdxl`` that a test may spoil."""
    return shutil.copytree(image_folder("sdxl"), tmp_path / "model")


def change(file: Path, how: Change) -> None:
    """Rewrite a JSON or safetensors file after ``how`` has changed its content."""
    content = json.loads(file.read_bytes()) if file.suffix == ".json" else load_file(file)
    how(content)
    if file.suffix == ".json":
        file.write_text(json.dumps(content))
    else:
        save_file(content, file)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_diffusion_model(folder)
    assert caught.value.remedy
    return caught.value.message


def answer(folder: Path) -> tiny.Array:
    """Return what the folder's UNet makes of zeros, told that the text is ones."""
    unet = load_diffusion_model(folder).unet
    context = mx.ones((1, 3, unet.config.cross_dims[0]))
    return np.asarray(unet(mx.zeros((1, 8, 8, 4)), mx.array([7.0]), context))


def test_a_folder_says_what_it_holds(folder_xl: Path) -> None:
    model = load_diffusion_model(folder_xl)
    assert (model.family, len(model.text_encoders)) == ("sdxl", 2)
    assert model.size == (128, 128)
    assert model.zero_empty_negative
    assert model.bytes == estimate_bytes(folder_xl)


def test_shards_are_read_together(folder: Path) -> None:
    before, weights = answer(folder), load_file(folder / UNET)
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / "unet" / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / UNET).unlink()
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))
    assert np.array_equal(answer(folder), before)
    (folder / "unet/b.safetensors").unlink()
    assert "b.safetensors" in refusal(folder)


def test_weights_in_half_precision_under_a_variants_name(folder: Path) -> None:
    before, weights = answer(folder), load_file(folder / UNET)
    halves = {name: array.astype(np.float16) for name, array in weights.items()}
    save_file(halves, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    (folder / UNET).unlink()
    assert kept.deviation(answer(folder), before) < 1e-2


def test_a_projection_may_be_stored_as_a_matrix_or_a_convolution(folder: Path) -> None:
    before = answer(folder)
    change(
        folder / UNET, lambda weights: weights.update({PROJECTION: weights[PROJECTION][..., 0, 0]})
    )
    assert np.array_equal(answer(folder), before)


@pytest.mark.parametrize(("stated", "zeros"), [(None, True), (False, False), (True, True)])
def test_sdxl_guides_away_from_zeros_unless_it_says_otherwise(
    folder_xl: Path, stated: bool | None, zeros: bool
) -> None:
    def state(index: dict[str, Any]) -> None:
        del index["force_zeros_for_empty_prompt"]
        if stated is not None:
            index["force_zeros_for_empty_prompt"] = stated

    change(folder_xl / "model_index.json", state)
    assert read_components(folder_xl).zero_empty_negative is zeros


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change(folder / UNET, lambda weights: weights.pop("conv_out.bias"))
    assert "model/unet does not fit its configuration: it lacks conv_out.bias" in refusal(folder)


def test_an_unknown_tensor_is_named(folder: Path) -> None:
    change(folder / ENCODER, lambda weights: weights.update(extra=np.zeros(3, np.float32)))
    assert "there is no place for extra" in refusal(folder)


def test_a_tensor_of_another_shape_is_named_with_both(folder: Path) -> None:
    change(folder / UNET, lambda weights: weights.update({"conv_in.bias": np.zeros(5, np.float32)}))
    message = refusal(folder)
    assert "conv_in.bias has the shape 5" in message
    assert "16" in message


def test_a_configuration_of_another_network_names_the_first_tensors(folder: Path) -> None:
    change(folder / "unet/config.json", lambda config: config.update(layers_per_block=1))
    assert "there is no place for" in refusal(folder)
    assert "more" in refusal(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component_is_named(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    assert part in refusal(folder)


@pytest.mark.parametrize("place", ["unet/config.json", "text_encoder/config.json"])
def test_a_damaged_configuration_is_named(folder: Path, place: str) -> None:
    (folder / place).write_text("{not json")
    assert f"model: {place} cannot be read" in refusal(folder)


@pytest.mark.parametrize("length", [0, 7, 200, 20_000])
def test_a_truncated_file_is_named_with_its_component(folder: Path, length: int) -> None:
    file = folder / UNET
    file.write_bytes(file.read_bytes()[:length])
    assert refusal(folder).startswith(f"model: {UNET} is ")
    with pytest.raises(ModelError, match=f"^model: {UNET} is "):
        estimate_bytes(folder)


def test_a_file_of_wrong_sizes_is_named_with_its_component(folder: Path) -> None:
    file = folder / UNET
    change(file, lambda weights: weights.update(extra=np.zeros((3, 5), np.float32)))
    file.write_bytes(file.read_bytes().replace(b'"shape":[3,5]', b'"shape":[3,6]'))
    assert refusal(folder).startswith(f"model: {UNET} is damaged: extra has 60 bytes")


def test_an_index_of_no_shards_is_named_with_its_component(folder: Path) -> None:
    index = (folder / UNET).with_name("diffusion_pytorch_model.safetensors.index.json")
    (folder / UNET).rename(index)
    index.write_text("{}")
    assert refusal(folder) == f"model: unet/{index.name} has no weight_map"


def test_weights_that_hold_code_are_never_opened(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    assert "only diffusion_pytorch_model.bin, a pickle, which is never read" in refusal(folder)


def test_a_pipeline_of_another_kind_is_named(folder: Path) -> None:
    change(
        folder / "model_index.json", lambda index: index.update(_class_name="PixArtAlphaPipeline")
    )
    assert "model is a PixArtAlphaPipeline" in refusal(folder)


def test_a_folder_without_any_model_is_refused(tmp_path: Path) -> None:
    assert "model_index.json" in refusal(tmp_path)


def test_parts_of_two_models_are_refused(folder: Path, image_folder: Callable[[str], Path]) -> None:
    for place in ("unet", "text_encoder"):
        shutil.rmtree(folder / place)
    shutil.copytree(image_folder("sdxl") / "unet", folder / "unet")
    shutil.copytree(image_folder("sd2") / "text_encoder", folder / "text_encoder")
    message = refusal(folder)
    assert "do not belong together" in message
    assert "56" in message
    assert "32" in message


def test_a_damaged_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer/tokenizer.json").write_text("{}")
    assert "model/tokenizer cannot be read" in refusal(folder)
