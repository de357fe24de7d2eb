"""FLUX, Z-Image and Qwen-Image: detection, options, and a machine without mflux.

None of it needs mflux. What does is in test_flux_end_to_end.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import JobError, ModelError
from daemon.specs import DiffuseSpec, InputFile
from workers.diffusion import flux
from workers.diffusion.mflux_models import variants
from workers.diffusion.mflux_models.variants import Variant
from workers.kinds import Context
from workers.models import ModelCache

FILE = InputFile(name="cat.png", sha256="0" * 64)

FLUX = {"model_index.json": {"_class_name": "FluxPipeline"}}
KLEIN = {"model_index.json": {"_class_name": "Flux2KleinPipeline", "is_distilled": True}}
KLEIN_BASE = {"model_index.json": {"_class_name": "Flux2KleinPipeline"}}
Z_IMAGE = {"model_index.json": {"_class_name": "ZImagePipeline"}}
QWEN = {"model_index.json": {"_class_name": "QwenImagePipeline"}}

Files = dict[str, dict[str, Any]]


def transformer(**config: Any) -> Files:
    return {"transformer/config.json": config}


def scheduler(**config: Any) -> Files:
    return {"scheduler/scheduler_config.json": config}


CASES: dict[str, Files] = {
    "dev": FLUX | transformer(guidance_embeds=True),
    "schnell": FLUX | transformer(guidance_embeds=False),
    "flux2-klein-4b": KLEIN | transformer(num_layers=5),
    "flux2-klein-9b": KLEIN | transformer(num_layers=8),
    "flux2-klein-base-4b": KLEIN_BASE | transformer(num_layers=5),
    "flux2-klein-base-9b": KLEIN_BASE | transformer(num_layers=8),
    "z-image-turbo": Z_IMAGE | scheduler(shift=3.0),
    "z-image": Z_IMAGE | scheduler(shift=6.0),
    "qwen-image": QWEN,
}


def folder_of(path: Path, files: Files) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(content))
    return path


def variant(path: Path, key: str) -> Variant:
    found = variants.detect(folder_of(path, CASES[key]))
    assert found is not None
    return found


def spec(**options: Any) -> DiffuseSpec:
    return DiffuseSpec(**{"prompt": "a cat", "model": "flux", "seed": 1, **options})


@pytest.mark.parametrize("key", CASES)
def test_a_folder_is_what_its_files_say(tmp_path: Path, key: str) -> None:
    assert variant(tmp_path, key).key == key


@pytest.mark.parametrize(
    "index", ["", "[]", "null", '{"_class_name": "StableDiffusionPipeline"}', "{}", "[" * 100_000]
)
def test_other_folders_are_not_mfluxs(tmp_path: Path, index: str) -> None:
    (tmp_path / "model_index.json").write_text(index)
    assert variants.detect(tmp_path) is None


def test_a_file_or_nothing_is_not_mfluxs(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    assert variants.detect(file) is None
    assert variants.detect(tmp_path) is None
    assert variants.detect(tmp_path / "nowhere") is None


@pytest.mark.parametrize("files", [FLUX, KLEIN, Z_IMAGE])
def test_a_folder_without_its_configuration_is_refused(tmp_path: Path, files: Files) -> None:
    with pytest.raises(ModelError, match=r"config\.json cannot be read: No such file"):
        variants.detect(folder_of(tmp_path, files))


def test_a_size_that_mflux_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="num_layers = 48; mflux knows 5 and 8"):
        variants.detect(folder_of(tmp_path, KLEIN | transformer(num_layers=48)))


def test_the_extra_is_said_to_be_missing(tmp_path: Path) -> None:
    if find_spec("mflux") is not None:
        pytest.skip("mflux is installed here")
    folder_of(tmp_path, CASES["dev"])
    with pytest.raises(ModelError) as caught:
        variants.require(tmp_path, "black-forest-labs/FLUX.1-dev")
    assert "black-forest-labs/FLUX.1-dev is a FLUX.1-dev model" in caught.value.message
    assert "studioq[flux]" in caught.value.message
    assert "mflux" in caught.value.message
    assert caught.value.remedy == variants.install_remedy(sys.platform)


def test_the_remedy_fits_the_platform() -> None:
    assert "pip install 'studioq[flux]'" in variants.install_remedy("darwin")
    assert "macOS only" in variants.install_remedy("linux")


def test_a_job_ends_before_anything_is_loaded(tmp_path: Path) -> None:
    if find_spec("mflux") is not None:
        pytest.skip("mflux is installed here")
    models = ModelCache(1 << 30, time.monotonic)
    context = Context(
        job=1,
        attempt=1,
        spec=spec(),
        folder=tmp_path,
        models=models,
        model=folder_of(tmp_path / "model", CASES["z-image"]),
    )
    with pytest.raises(ModelError, match=r"flux is a Z-Image model, which needs .*studioq\[flux\]"):
        list(flux.run(context))
    assert models.paths() == []


def test_nothing_of_it_is_imported_before_it_is_used(tmp_path: Path) -> None:
    """Not by importing the job kind, and not by asking what a model is."""
    folder_of(tmp_path, CASES["dev"])
    program = (
        "import sys; from pathlib import Path; import workers.diffuse; "
        "from workers.diffusion.mflux_models.variants import detect; "
        "assert detect(Path(sys.argv[1])).key == 'dev'; "
        "print(sorted({'mflux', 'greenlet', 'torch', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("key", "options", "message"),
    [
        ("dev", {"image": FILE, "mask": FILE}, "FLUX.1-dev models take no mask"),
        ("schnell", {"sampler": "lcm"}, "a sampler of their own and cannot use lcm"),
        ("dev", {"prediction_type": "epsilon"}, "epsilon is not theirs"),
        ("dev", {"negative_prompt": "dogs"}, "know no negative prompt"),
        ("z-image-turbo", {"negative_prompt": "dogs"}, "know no negative prompt"),
        ("flux2-klein-base-4b", {"negative_prompt": "dogs"}, "know no negative prompt"),
        ("z-image", {"width": 1000}, "need multiples of 16: width = 1000 is none"),
        ("qwen-image", {"height": 8}, "need multiples of 16: height = 8 is none"),
    ],
)
def test_what_mflux_would_ignore_is_refused(
    tmp_path: Path, key: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(JobError, match=message) as caught:
        variants.refuse_unusable(spec(**options), variant(tmp_path, key))
    assert caught.value.remedy


def test_the_remedy_for_a_size_is_a_size_that_works(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        variants.refuse_unusable(spec(width=1000), variant(tmp_path, "dev"))
    assert caught.value.remedy == "use --width 992"


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("dev", {}),
        ("dev", {"sampler": "euler", "width": 512, "height": 16}),
        ("z-image", {"negative_prompt": "dogs"}),
        ("qwen-image", {"negative_prompt": "dogs"}),
        ("schnell", {"negative_prompt": "", "image": FILE}),
    ],
)
def test_what_mflux_understands_is_let_through(
    tmp_path: Path, key: str, options: dict[str, Any]
) -> None:
    variants.refuse_unusable(spec(**options), variant(tmp_path, key))


@pytest.mark.parametrize(
    ("key", "cfg", "guidance"),
    [
        ("dev", 3.5, 3.5),
        ("dev", 0, 1.0),
        ("z-image", 4, 4.0),
        ("z-image", 0, 0.0),
        ("qwen-image", 0, 1.0),
        ("flux2-klein-base-9b", 0, 1.0),
        ("schnell", 3.5, None),
        ("z-image-turbo", 3.5, None),
        ("flux2-klein-4b", 3.5, None),
    ],
)
def test_no_guidance_is_what_each_model_calls_none(
    tmp_path: Path, key: str, cfg: float, guidance: float | None
) -> None:
    chosen = variants.arguments(spec(cfg=cfg), variant(tmp_path, key))
    assert chosen.get("guidance") == guidance


@pytest.mark.parametrize(
    ("strength", "steps", "first"), [(0.7, 10, 3), (0.8, 10, 2), (0.25, 4, 3), (0, 7, 7), (1, 7, 0)]
)
def test_strength_is_the_share_made_anew(
    tmp_path: Path, strength: float, steps: int, first: int
) -> None:
    """mflux begins at step ``int(steps * image_strength)``."""
    given = spec(image=FILE, strength=strength, steps=steps)
    chosen = variants.arguments(given, variant(tmp_path, "dev"))
    assert int(steps * chosen["image_strength"]) == first
    assert chosen["num_inference_steps"] == steps


def test_arguments_say_no_more_than_the_job_does(tmp_path: Path) -> None:
    assert variants.arguments(spec(steps=4), variant(tmp_path, "schnell")) == {
        "prompt": "a cat",
        "num_inference_steps": 4,
    }


def test_options_that_are_probably_not_meant_are_noted(tmp_path: Path) -> None:
    turbo = variant(tmp_path, "z-image-turbo")
    said = "\n".join(variants.notes(spec(batch_size=4, n_images=8), turbo))
    assert "made for 9 steps; this job does 25" in said
    assert "cfg 7.5 is not used" in said
    assert "one at a time" in said


def test_options_that_suit_the_model_are_not_noted(tmp_path: Path) -> None:
    assert variants.notes(spec(steps=25, cfg=3.5), variant(tmp_path, "dev")) == []


def test_the_record_names_the_sampler_that_was_used() -> None:
    assert variants.recorded(spec())["sampler"] == "euler"
    assert variants.recorded(spec())["prompt"] == "a cat"
