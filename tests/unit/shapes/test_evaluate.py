"""The measured pictures are those that a job makes, and the card says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from workers.diffusion.denoise import Denoiser
from workers.diffusion.load import DiffusionModel, load_diffusion_model
from workers.diffusion.pictures import to_pixels
from workers.diffusion.prompts import encode_prompts
from workers.diffusion.samplers import make_sampler
from workers.shapes import evaluate as program
from workers.shapes import train
from workers.shapes.captions import held_out_pairs
from workers.shapes.card import CARD, write_card
from workers.shapes.evaluate import EVALUATION, SHEET, evaluate, write_sheet
from workers.shapes.evaluation import drawn
from workers.shapes.generate import Sampling, generate
from workers.shapes.stages import Plan

CAPTIONS = ["a red circle above a pink square", "a blue triangle", "a green square"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> DiffusionModel:
    return load_diffusion_model(tiny_model, mx.float32)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(cfg=4.0, steps=3),
        Sampling(cfg=0.0, steps=3),
        Sampling(cfg=2.0, steps=3, sampler="dpm++2m"),
        Sampling(cfg=2.0, steps=3, sampler="euler-a"),
    ],
)
def test_a_picture_is_that_of_a_job(
    model: DiffusionModel, tiny_model: Path, sampling: Sampling
) -> None:
    made = generate(model, CAPTIONS, [5, 6, 7], sampling)
    assert made.shape == (3, 16, 16, 3)
    job = load_diffusion_model(tiny_model, mx.float32)
    for picture, caption, seed in zip(made, CAPTIONS, [5, 6, 7], strict=True):
        conditions = encode_prompts(job, caption, None, guided=sampling.cfg > 0)
        sampler = make_sampler(sampling.sampler, job.scheduler, sampling.steps)
        denoiser = Denoiser(job, conditions, sampler, cfg=sampling.cfg, size=job.size)
        *_, last = denoiser.run([seed])
        wanted = to_pixels(np.array(job.vae.decode(last.latents)))[0]
        assert np.abs(picture.astype(int) - wanted.astype(int)).max() <= 1


def test_a_picture_does_not_depend_on_its_batch(model: DiffusionModel) -> None:
    sampling = Sampling(steps=2)
    many = generate(model, CAPTIONS * 6, list(range(18)), sampling)
    last = generate(model, CAPTIONS[2:], [17], sampling)
    assert np.abs(many[17].astype(int) - last[0].astype(int)).max() <= 1


def test_only_held_out_pairs_are_measured_each_with_its_seed(model: DiffusionModel) -> None:
    made = evaluate(model, 5, 40, Sampling(steps=1))
    assert {frozenset(scene.things) for scene in made.scenes} <= held_out_pairs()
    again = generate(model, [made.scenes[3].caption], [43], made.sampling)
    assert np.abs(made.pictures[3].astype(int) - again[0].astype(int)).max() <= 1


def test_the_numbers_are_shares_of_the_verdicts_with_what_failed() -> None:
    made = drawn(40, 0)
    made.verdicts[3] = type(made.verdicts[3])(
        colour=True, relation=False, shape=True, background=True
    )
    said = made.to_dict()
    assert said["accuracy"]["relation"] == 0.975
    assert said["accuracy"]["all"] == 0.975
    assert said["accuracy"]["colour"] == 1
    assert [failure["index"] for failure in said["failures"]] == [3]
    assert said["failures"][0]["caption"] == made.scenes[3].caption
    assert sum(group["pictures"] for group in said["by_relation"].values()) == 40
    assert said["by_relation"][made.scenes[3].relation]["relation"] < 1
    json.dumps(said, allow_nan=False)


def test_the_sheet_shows_all_pictures_and_frames_the_wrong_ones(tmp_path: Path) -> None:
    made = drawn(18, 0)
    made.verdicts[17] = type(made.verdicts[17])(
        colour=False, relation=True, shape=True, background=True
    )
    write_sheet(tmp_path / "sheet.png", made.pictures, made.verdicts)
    page = np.array(Image.open(tmp_path / "sheet.png"))
    assert page.shape == (2 * 132, 16 * 132, 3)
    assert np.array_equal(page[2:130, 2:130], made.pictures[0])
    assert np.array_equal(page[134:262, 134:262], made.pictures[17])
    assert tuple(page[132, 132]) == (255, 0, 0)
    assert tuple(page[0, 0]) == (255, 255, 255)


def test_the_program_writes_numbers_sheet_and_card(
    tiny_model: Path, tiny_run: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_model), "--out", str(tmp_path / "results"), "--pictures", "4"]
    arguments += ["--steps", "2", "--run", str(tiny_run.folder), "--seed", "9"]
    assert program.main(arguments) == 0
    numbers = json.loads((tmp_path / "results" / EVALUATION).read_text())
    assert json.loads(capsys.readouterr().out) == numbers["accuracy"]
    assert numbers["accuracy"]["pictures"] == 4
    assert (numbers["seed"], numbers["steps"], numbers["sampler"]) == (9, 2, "ddim")
    assert (tmp_path / "results" / SHEET).is_file()
    card = (tiny_model / CARD).read_text()
    assert "On 4 held-out captions (seeds from 9, ddim, 2 steps, CFG 4.0)" in card


def test_the_card_has_the_run_s_figures_and_no_gaps(
    model: DiffusionModel, tiny_run: Plan, tmp_path: Path
) -> None:
    write_card(tmp_path, evaluate(model, 2, 0, Sampling(steps=1)), tiny_run.folder)
    card = (tmp_path / CARD).read_text()
    assert "$" not in card
    assert "license: apache-2.0" in card
    assert "| vae | MLX, studioq's own | " in card
    assert " | 16 | 2 | 1 | 0.0 | 0.001 | float32 |" in card
    assert "25 of the 252 pairs" in card
    assert "600 captions" in card


def test_a_folder_that_is_no_model_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([str(tmp_path), "--out", str(tmp_path / "results")]) == 1
    assert "is not an image model" in capsys.readouterr().err


def test_training_from_the_command_line_runs_all_three_steps(tmp_path: Path) -> None:
    run, model = str(tmp_path / "run"), tmp_path / "model"
    few = ["--out", run, "--small", "--steps", "1", "--batch", "2", "--pool", "4"]
    assert train.main(["vae", *few, "--direct-gradients"]) == 0
    assert train.main(["unet", *few, "--precision", "bfloat16"]) == 0
    assert train.main(["export", "--out", run, "--small", "--to", str(model)]) == 0
    assert load_diffusion_model(model).size == (16, 16)


def test_training_the_unet_first_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["unet", "--out", str(tmp_path), "--small", "--pool", "4"]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err
