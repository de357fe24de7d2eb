"""The image model that ships with studioq: complete, small, and right where the demo shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from daemon import demo
from daemon.models import SHIPPED_MODELS
from workers.diffusion import autoencode
from workers.diffusion.denoise import Denoiser
from workers.diffusion.load import load_diffusion_model
from workers.diffusion.pictures import to_pixels
from workers.diffusion.prompts import encode_prompts
from workers.diffusion.samplers import make_sampler
from workers.shapes.captions import all_scenes
from workers.shapes.checker import Accuracy, check
from workers.shapes.evaluate import evaluate
from workers.shapes.generate import Sampling

FOLDER = SHIPPED_MODELS / "shapes"


def files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def test_the_model_is_small_and_has_its_card() -> None:
    assert sum(file.stat().st_size for file in files(FOLDER)) < 10_200_000
    assert sum(file.stat().st_size for file in FOLDER.glob("*/*.safetensors")) < 10_000_000
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert "$" not in card


def test_the_demo_s_picture_shows_what_was_asked_for() -> None:
    model = load_diffusion_model(FOLDER)
    caption, seed = str(demo.PICTURE["prompt"]), int(str(demo.PICTURE["seed"]))
    conditions = encode_prompts(model, caption, None, guided=True)
    sampler = make_sampler("ddim", model.scheduler, 25)
    denoiser = Denoiser(model, conditions, sampler, cfg=7.5, size=model.size)
    *_, last = denoiser.run([seed])
    pixels = to_pixels(np.array(autoencode.decode(model.vae, last.latents)))
    scene = next(scene for scene in all_scenes() if scene.caption == caption)
    (verdict,) = check(pixels, [scene])
    assert verdict.all


def test_captions_that_no_training_showed_are_drawn_right() -> None:
    evaluation = evaluate(load_diffusion_model(FOLDER), 12, 1000, Sampling())
    found = Accuracy.of(evaluation.verdicts)
    assert min(found.colour, found.relation, found.shape, found.background) > 0.9
