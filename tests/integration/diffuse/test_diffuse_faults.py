"""What goes wrong in a diffusion is one message that says it, and what was good before it stays."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from daemon.errors import DiskFullError, ModelError, NonFiniteError, OutOfMemoryError
from tests.integration.diffuse.conftest import UNET
from tests.integration.diffuse.studio import SHEET, USUAL, Studio, alike, same
from workers.diffusion.batching import picture_bytes
from workers.diffusion.denoise import Denoiser
from workers.diffusion.load import load_diffusion_model
from workers.diffusion.prompts import encode_prompts
from workers.diffusion.samplers import make_sampler
from workers.events import Progress
from workers.models import ModelCache

Models = Callable[[str], Path]

LARGEST = float(np.finfo(np.float32).max)


@pytest.fixture
def copy(models: Models, tmp_path: Path) -> Path:
    """A copy of the fastest model that a test may spoil."""
    return shutil.copytree(models("one-block"), tmp_path / "spoilt")


def change(file: Path, name: str, how: Callable[[Any], Any]) -> None:
    """Change one tensor of a safetensors file, or one value of a JSON file."""
    content = load_file(file) if file.suffix == ".safetensors" else json.loads(file.read_bytes())
    content[name] = how(content[name])
    if file.suffix == ".safetensors":
        save_file(content, file)
    else:
        file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("network", "tensor", "value"),
    [
        ("unet", "conv_out.bias", np.nan),
        ("vae", "decoder.conv_out.bias", np.inf),
        ("vae", "post_quant_conv.weight", np.nan),
    ],
)
def test_a_picture_of_no_numbers_is_never_saved(
    studio: Studio, copy: Path, network: str, tensor: str, value: float
) -> None:
    change(copy / network / UNET, tensor, lambda array: np.full_like(array, value))
    job = studio.job(model=copy, n_images=3, batch_size=2, preview_every=1)
    with pytest.raises(NonFiniteError, match=r"image 0 \(seed 7\) is not a picture") as caught:
        job.run()
    assert caught.value.remedy
    assert job.published() == job.names() == []
    assert not any(thread.name.startswith("pictures") for thread in threading.enumerate())


def largest_latents(model: Path, steps: int) -> Callable[[int], float]:
    """Return the function from a seed to the largest number in the latents of its picture."""
    loaded = load_diffusion_model(model)
    denoiser = Denoiser(
        loaded,
        encode_prompts(loaded, USUAL["prompt"], None, guided=True),
        make_sampler("ddim", loaded.scheduler, steps),
        cfg=USUAL["cfg"],
        size=(USUAL["height"], USUAL["width"]),
    )

    def largest(seed: int) -> float:
        *_, last = denoiser.run([seed])
        return float(mx.abs(last.latents).max())

    return largest


def overflowing(model: Path, steps: int, good: int) -> int:
    """Make a model's VAE overflow for some latents; return a seed after ``good`` good pictures.

    The VAE divides latents by a number so small that large ones become infinite, and multiplies
    them with zeros, which gives a plain picture or, of infinities, NaN.
    """
    largest = largest_latents(model, steps)
    found = [largest(seed) for seed in range(good + 1)]
    while max(found[-good - 1 : -1]) * 1.01 > found[-1]:
        found.append(largest(len(found)))
    start = len(found) - good - 1
    bound = max(found[start : start + good]) * 1.005
    change(model / "vae/config.json", "scaling_factor", lambda _: bound / LARGEST)
    change(model / "vae" / UNET, "post_quant_conv.weight", np.zeros_like)
    return start


@pytest.mark.parametrize("steps", [1, 4])
def test_pictures_before_a_bad_one_stay(studio: Studio, copy: Path, steps: int) -> None:
    seed = overflowing(copy, steps, good=3)
    job = studio.job(model=copy, seed=seed, steps=steps, n_images=6, batch_size=1, preview_every=0)
    with pytest.raises(NonFiniteError, match=rf"image 3 \(seed {seed + 3}\)"):
        job.run()
    wanted = [f"image-{index:04}.png" for index in range(3)]
    assert job.published() == job.names() == wanted


def test_a_bad_picture_spoils_its_batch_only(studio: Studio, copy: Path) -> None:
    seed = overflowing(copy, 3, good=3)
    job = studio.job(model=copy, seed=seed, n_images=5, batch_size=2)
    with pytest.raises(NonFiniteError, match=rf"image 3 \(seed {seed + 3}\)"):
        job.run()
    assert job.published() == job.names() == ["image-0000.png", "image-0001.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("index", [0, 2])
def test_a_full_disk_is_said_as_what_it_is(studio: Studio, index: int) -> None:
    job = studio.job(n_images=4, batch_size=1)
    (job.folder / f".image-{index:04}.png.part").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match=f"image-{index:04}"):
        job.run()
    assert f"image-{index:04}.png" not in job.published()
    assert SHEET not in job.names()


def small_studio(studio: Studio, limit: int) -> Studio:
    """Return a place for jobs on a machine that has only so many bytes."""
    cache = ModelCache(2**30, time.monotonic, limit_bytes=limit)
    folder = studio.folder / "small"
    folder.mkdir()
    return Studio(folder, cache, studio.model)


def test_more_pixels_than_memory_holds_are_refused_at_once(studio: Studio) -> None:
    small = small_studio(studio, 2**28)
    job = small.job(width=8192, height=4096)
    with pytest.raises(OutOfMemoryError, match="a picture of 8192x4096 pixels needs about") as told:
        job.run()
    assert "this machine has 0.2 GiB for it" in str(told.value)
    assert told.value.remedy == "choose a smaller --width and --height"
    assert not job.of(Progress)
    assert not job.names()
    image = studio.drawing("large", 1024, 1032)
    with pytest.raises(OutOfMemoryError, match="a picture of 1032x1024 pixels"):
        small.run(image=image, width=None, height=None)


def test_a_batch_is_made_smaller_where_memory_is_short(studio: Studio) -> None:
    model = load_diffusion_model(studio.model)
    one = picture_bytes(model, (16, 16), guided=True)
    small = small_studio(studio, model.bytes + 3 * one)
    asked = {"n_images": 4, "batch_size": 4}
    short, ample = small.run(**asked), studio.run(**asked)
    assert (short.facts["batch_size"], ample.facts["batch_size"]) == (2, 4)
    assert alike(short.pictures(), ample.pictures())


def test_a_model_larger_than_memory_is_refused_before_it_is_read(studio: Studio) -> None:
    with pytest.raises(OutOfMemoryError, match="model one-block needs"):
        small_studio(studio, 1000).run()


def not_a_model(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "notes.txt").write_text("words")
    return r"spoilt is not an image model: it has no model_index\.json, and no safetensors file"


def another_pipeline(folder: Path) -> str:
    change(folder / "model_index.json", "_class_name", lambda _: "StableDiffusion3Pipeline")
    change(folder / "model_index.json", "unet", lambda _: [None, None])
    return "spoilt is a StableDiffusion3Pipeline; what can be used is"


def a_controlnet(folder: Path) -> str:
    change(
        folder / "model_index.json", "_class_name", lambda _: "StableDiffusionControlNetPipeline"
    )
    index = json.loads((folder / "model_index.json").read_bytes())
    index["controlnet"] = ["diffusers", "ControlNetModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return "spoilt is a StableDiffusionControlNetPipeline with the part controlnet; what can be"


def without_unet(folder: Path) -> str:
    shutil.rmtree(folder / "unet")
    return "spoilt is incomplete: it has no unet/"


def cut_short(folder: Path) -> str:
    file = folder / "vae" / UNET
    file.write_bytes(file.read_bytes()[:-1000])
    return f"^spoilt: vae/{re.escape(UNET)} is incomplete"


def another_shape(folder: Path) -> str:
    change(folder / "unet" / UNET, "conv_in.bias", lambda _: np.zeros(7, np.float32))
    return r"spoilt/unet .*conv_in\.bias has the shape 7, the network needs 32"


def unknown_tensor(folder: Path) -> str:
    file = folder / "vae" / UNET
    save_file(load_file(file) | {"stray": np.zeros(1, np.float32)}, file)
    return "spoilt/vae .*there is no place for stray"


def missing_tensor(folder: Path) -> str:
    file = folder / "unet" / UNET
    save_file({key: each for key, each in load_file(file).items() if key != "conv_out.bias"}, file)
    return r"spoilt/unet .*it lacks conv_out\.bias"


def a_pickle(folder: Path) -> str:
    (folder / "unet" / UNET).unlink()
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"PK\x03\x04")
    return r"only diffusion_pytorch_model\.bin, a pickle, which is never read"


@pytest.mark.parametrize(
    "spoil",
    [
        not_a_model,
        another_pipeline,
        a_controlnet,
        without_unet,
        cut_short,
        another_shape,
        unknown_tensor,
        missing_tensor,
        a_pickle,
    ],
)
def test_a_faulty_model_is_one_message_and_can_be_mended(
    studio: Studio, copy: Path, spoil: Callable[[Path], str]
) -> None:
    before = studio.run(model=copy)
    words = spoil(copy)
    job = studio.job(model=copy)
    with pytest.raises(ModelError, match=words) as caught:
        job.run()
    assert caught.value.remedy
    assert job.names() == []
    shutil.rmtree(copy)
    shutil.copytree(studio.model, copy)
    assert same(studio.run(model=copy), before)


def test_a_language_model_makes_no_pictures(studio: Studio, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="is not a Stable Diffusion checkpoint") as caught:
        studio.run(model=tiny_model)
    assert caught.value.remedy


def test_a_model_that_was_exchanged_is_loaded_again(studio: Studio, copy: Path) -> None:
    first = studio.run(model=copy)
    change(copy / "unet" / UNET, "conv_out.bias", lambda array: array + 1)
    second = studio.run(model=copy)
    assert "Loading" in second.log
    assert not alike(first.pictures(), second.pictures())
