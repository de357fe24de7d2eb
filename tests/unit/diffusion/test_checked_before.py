"""What the daemon looks at before a job is queued is what the engine reads, by the same rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.errors import ModelError
from daemon.image_facts import image_facts
from daemon.image_files import MFLUX_PIPELINES, OTHER_USES, STEERING_PARTS, ImageFolder
from tests.unit.image_folders import INDEX, write_image_folder, write_json
from workers.diffusion.folder import model_files, read_folder
from workers.diffusion.load import DiffusionModel
from workers.diffusion.mflux_models.variants import detect

FOLDERS = ["sd1", "sd2", "sdxl", "sd1-old", "sdxl-old"]
FAMILIES = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL"}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_weights_are_the_same_files(image_folder: Callable[[str], Path], name: str) -> None:
    path = image_folder(name)
    folder = ImageFolder(name=name, path=path)
    folder.check()
    parts = ("text_encoder", "text_encoder_2", "unet", "vae")
    there = [part for part in parts if (path / part).is_dir()]
    assert [file for part in there for file in folder.weights(part)] == list(model_files(path))


@pytest.mark.parametrize("name", FOLDERS)
def test_what_a_model_is_said_to_be_it_is(
    image_folder: Callable[[str], Path], image_model: Callable[[str], DiffusionModel], name: str
) -> None:
    facts, model = image_facts(image_folder(name)), image_model(name)
    assert facts.family == FAMILIES[model.family]
    assert facts.native_size == (model.size[1], model.size[0])
    assert facts.prediction_type == model.scheduler.prediction_type


@pytest.mark.parametrize("use", OTHER_USES)
def test_the_same_classes_are_refused(tmp_path: Path, use: str) -> None:
    index = {**INDEX, "_class_name": f"StableDiffusion{use}Pipeline"}
    _refused_by_both(write_image_folder(tmp_path / "sd", index))


@pytest.mark.parametrize("part", STEERING_PARTS)
def test_the_same_parts_are_refused(tmp_path: Path, part: str) -> None:
    _refused_by_both(write_image_folder(tmp_path / "sd", {**INDEX, part: ["diffusers", "Any"]}))


def _refused_by_both(folder: Path) -> None:
    for read in (lambda: read_folder(folder), ImageFolder(name="sd", path=folder).check):
        with pytest.raises(ModelError, match=r"what can be used is Stable Diffusion"):
            read()


@pytest.mark.parametrize("name", MFLUX_PIPELINES)
def test_the_pipelines_of_mflux_are_known_to_both(tmp_path: Path, name: str) -> None:
    folder = write_image_folder(tmp_path / "flux", {**INDEX, "_class_name": name})
    write_json(folder / "transformer" / "config.json", {"num_layers": 5})
    ImageFolder(name="flux", path=folder).check()
    assert detect(folder) is not None
