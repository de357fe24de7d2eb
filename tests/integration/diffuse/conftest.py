"""Fixtures of the diffusion jobs' tests: tiny models with drawn weights, and a place to run jobs.

The rule this file protects: the models' folders are written once and shared; a test that spoils one
takes a copy.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tests.integration.diffuse.studio import Studio
from tests.unit.diffusion import kept, tiny
from workers.models import ModelCache

UNET = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The writer of tiny models: sd1, sd1-old, sd2, sdxl, and sd1 with the smallest UNets.

    Those are called one-block, which is the fastest, and inpainting, which takes a mask.
    """

    @cache
    def write(name: str) -> Path:
        folder = tmp_path_factory.mktemp("image-models") / name
        if name in ("one-block", "inpainting"):
            return _with_unet(shutil.copytree(write("sd1"), folder), f"unet/{name}")
        return tiny.write_folder(folder, kept.PLACE / "folders" / name, kept.shapes())

    return write


def _with_unet(folder: Path, name: str) -> Path:
    network = kept.networks()[name]
    (folder / "unet/config.json").write_text(json.dumps(network["config"]))
    save_file(tiny.weights(name, network["parameters"]), folder / "unet" / UNET)
    return folder


@pytest.fixture(scope="module")
def models_kept() -> Iterator[ModelCache]:
    """One cache for a module's jobs, as an engine has for all of its life."""
    cache = ModelCache(2**30, time.monotonic)
    yield cache
    cache.clear()


@pytest.fixture
def studio(models_kept: ModelCache, models: Callable[[str], Path], tmp_path: Path) -> Studio:
    """A place for jobs of the fastest model."""
    return Studio(tmp_path, models_kept, models("one-block"))
