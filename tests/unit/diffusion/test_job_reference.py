"""The job kind ``diffuse`` writes the pictures that diffusers' pipelines make of the same noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from daemon.specs import DiffuseSpec, InputFile
from tests.unit.diffusion import kept, tiny
from tests.unit.diffusion.cases import RUNS, SEED, STEPS, Run
from workers import diffuse
from workers.kinds import Context
from workers.models import ModelCache

# One run for each thing that the job adds to what test_pipeline_reference.py compares.
ASKED = (
    "sd1-ddim",
    "sd1-euler",
    "sd1-unguided",
    "sd1-image-full",
    "sd1-inpaint",
    "sd1-inpaint-weak",
    "sdxl-euler",
)

Levels = npt.NDArray[np.float32]


@pytest.fixture
def cache() -> Iterator[ModelCache]:
    models = ModelCache(2**30, time.monotonic)
    yield models
    models.clear()


def spec(run: Run, inputs: dict[str, Path]) -> DiffuseSpec:
    height, width = run.size
    options: dict[str, Any] = {
        key: InputFile(name=path.name, sha256="0" * 64) for key, path in inputs.items()
    }
    if run.strength is not None:
        options["strength"] = run.strength
    return DiffuseSpec(
        prompt=run.prompt,
        negative_prompt=run.negative,
        n_images=run.images,
        steps=STEPS,
        cfg=run.cfg,
        sampler=run.sampler,
        width=width,
        height=height,
        seed=SEED,
        **options,
    )


def write_inputs(run: Run, folder: Path) -> dict[str, Path]:
    """Write the run's picture and mask; return them by their places in the spec."""
    inputs = {}
    if run.strength is not None:
        inputs["image"] = folder / "picture.png"
        Image.fromarray(tiny.picture("picture", *run.size)).save(inputs["image"])
    if run.masked:
        inputs["mask"] = folder / "mask.png"
        Image.fromarray(tiny.mask(*run.size)).save(inputs["mask"])
    return inputs


def levels(name: str) -> Levels:
    """Return the kept pixels, (images, y, x, 3), as the levels 0 to 255 of a picture."""
    pixels = kept.answers("pipelines")[f"{name}/pixels"].transpose(0, 2, 3, 1)
    return np.rint(np.clip(pixels / 2 + 0.5, 0, 1) * np.float32(255))


@pytest.mark.parametrize("name", ASKED)
def test_a_job_writes_the_pictures_that_diffusers_makes(
    name: str, cache: ModelCache, image_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    run, wanted = RUNS[name], levels(name)
    inputs = write_inputs(run, tmp_path)
    attempt = tmp_path / "attempt"
    attempt.mkdir()
    model = image_folder(run.folder)
    context = Context(
        job=1,
        attempt=1,
        spec=spec(run, inputs),
        folder=attempt,
        models=cache,
        inputs=inputs,
        model=model,
    )
    for _ in diffuse.run(context):
        pass
    painted = tiny.mask(*run.size) > 127 if run.masked else np.ones(run.size, dtype=bool)
    for image in range(run.images):
        found = np.asarray(Image.open(attempt / f"image-{image:04}.png"), dtype=np.float32)
        difference = np.abs(found[::4, ::4] - wanted[image])[painted[::4, ::4]]
        assert difference.max() <= 1
    if run.masked:
        assert np.array_equal(found[~painted], tiny.picture("picture", *run.size)[~painted])
