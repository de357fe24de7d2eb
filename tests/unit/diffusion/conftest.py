"""Fixtures of the image models' tests: tiny folders with drawn weights, written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.unit.diffusion import kept, tiny
from workers.diffusion.load import DiffusionModel, load_diffusion_model


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The writer of tiny model folders, by name: sd1, sd2, sdxl, sd1-old, sdxl-old.

    They are shared by all tests, so not to be changed.
    """

    @cache
    def write(name: str) -> Path:
        folder = tmp_path_factory.mktemp("image-models") / name
        return tiny.write_folder(folder, kept.PLACE / "folders" / name, kept.shapes())

    return write


@pytest.fixture(scope="session")
def image_model(image_folder: Callable[[str], Path]) -> Callable[[str], DiffusionModel]:
    """The loader of tiny models by their folders' names; each is loaded once."""
    return cache(lambda name: load_diffusion_model(image_folder(name)))
