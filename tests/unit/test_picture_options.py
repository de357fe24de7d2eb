"""Options of a diffusion that leave nothing to do, or that nothing is done with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.errors import SpecRefusedError
from daemon.image_files import MFLUX_PIPELINES
from daemon.picture_options import check_steps, notes
from daemon.specs import DiffuseSpec
from tests.unit.image_folders import CONFIGS, INDEX, write_image_folder, write_json

PHOTO = {"name": "photo.png", "sha256": "0" * 64}


def spec(**options: Any) -> DiffuseSpec:
    return DiffuseSpec(**{"prompt": "x", "seed": 1, **options})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "sd")


@pytest.mark.parametrize(("steps", "strength"), [(25, 0.039), (1, 0.99), (1000, 0.0009)])
def test_a_strength_that_leaves_no_step_is_refused(
    model: Path, steps: int, strength: float
) -> None:
    with pytest.raises(SpecRefusedError) as caught:
        check_steps(spec(image=PHOTO, steps=steps, strength=strength), model)
    told = f"strength = {strength:g} leaves none of {steps} step{'s' if steps > 1 else ''},"
    assert caught.value.message.startswith(told)
    assert caught.value.field == "strength"


@pytest.mark.parametrize("steps", [1, 3, 7, 25, 49, 1000])
def test_what_the_remedy_advises_does(model: Path, steps: int) -> None:
    with pytest.raises(SpecRefusedError) as caught:
        check_steps(spec(image=PHOTO, steps=steps, strength=0.0005), model)
    words = str(caught.value.remedy).split()
    check_steps(spec(image=PHOTO, steps=steps, strength=float(words[2])), model)
    assert "--steps" not in words


def test_more_steps_are_advised_where_so_many_are_allowed(model: Path) -> None:
    with pytest.raises(SpecRefusedError) as caught:
        check_steps(spec(image=PHOTO, steps=25, strength=0.03), model)
    assert "give --strength 0.04 or more, or --steps 34 or more;" in str(caught.value.remedy)
    check_steps(spec(image=PHOTO, steps=34, strength=0.03), model)


@pytest.mark.parametrize(
    "options",
    [{}, {"image": PHOTO, "strength": 0}, {"image": PHOTO, "strength": 0.04}],
)
def test_steps_that_are_left_and_an_image_as_it_is_pass(
    model: Path, options: dict[str, Any]
) -> None:
    check_steps(spec(steps=25, **options), model)


def test_mflux_counts_its_own_steps(tmp_path: Path) -> None:
    flux = write_image_folder(tmp_path, {**INDEX, "_class_name": MFLUX_PIPELINES[0]})
    check_steps(spec(image=PHOTO, steps=4, strength=0.1), flux)


@pytest.mark.parametrize("cfg", [0, 1])
def test_a_negative_prompt_without_guidance_is_told_of(model: Path, cfg: float) -> None:
    for known in (model, None):
        (note,) = notes(spec(negative_prompt="text", cfg=cfg), known)
        assert note.startswith(f"the negative prompt is not used: --cfg {cfg} means no guidance")


@pytest.mark.parametrize(
    "options", [{"cfg": 0}, {"negative_prompt": "text"}, {"negative_prompt": "", "cfg": 0}]
)
def test_what_is_used_is_not_told_of(model: Path, options: dict[str, Any]) -> None:
    assert notes(spec(**options), model) == ()


def test_a_model_with_guidance_built_in_has_no_negative_side(model: Path) -> None:
    write_json(model / "unet" / "config.json", {**CONFIGS["unet"], "time_cond_proj_dim": 256})
    (note,) = notes(spec(negative_prompt="text"), model)
    assert "this model has its guidance built in" in note
