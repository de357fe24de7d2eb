"""Whole runs: prompt to latents and pixels, as diffusers' pipelines make them of the same noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.unit.diffusion import kept, tiny
from tests.unit.diffusion.cases import RUNS, SEED, STEPS, Run
from tests.unit.diffusion.test_networks_unet import load
from workers.diffusion.denoise import Denoiser, Repaint
from workers.diffusion.load import DiffusionModel
from workers.diffusion.masks import Mask, hidden, latent_mask
from workers.diffusion.prompts import encode_prompts
from workers.diffusion.samplers import make_sampler
from workers.diffusion.schedule import SchedulerConfig

TOLERANCE, PIXEL_TOLERANCE = 1e-4, 1e-4

Load = Callable[[str], DiffusionModel]


def scheduler(chosen: Run, model: DiffusionModel) -> SchedulerConfig:
    return replace(model.scheduler, **{"timestep_spacing": "leading"} | chosen.scheduler)


def picture(size: tuple[int, int]) -> Any:
    return tiny.picture("picture", *size).astype(np.float32)[None] / np.float32(127.5) - 1


def repaint(model: DiffusionModel, chosen: Run) -> Repaint | None:
    if not chosen.masked:
        return None
    mask: Mask = (tiny.mask(*chosen.size)[..., None] > 127).astype(np.float32)
    pixels = picture(chosen.size)
    return Repaint(
        clean=model.vae.encode(mx.array(pixels)),
        mask=mx.array(latent_mask(mask))[None],
        masked=model.vae.encode(mx.array(hidden(pixels, mask))) if model.repaints else None,
    )


def run(model: DiffusionModel, chosen: Run) -> mx.array:
    """Return the final latents, (images, y, x, 4)."""
    strength = 1.0 if chosen.strength is None else chosen.strength
    sampler = make_sampler(chosen.sampler, scheduler(chosen, model), STEPS, strength=strength)
    guided = chosen.cfg > 1 and model.unet.config.time_cond_dim is None
    conditions = encode_prompts(model, chosen.prompt, chosen.negative, guided=guided)
    denoiser = Denoiser(
        model,
        conditions,
        sampler,
        cfg=chosen.cfg,
        size=chosen.size,
        repaint=repaint(model, chosen),
    )
    from_noise = chosen.strength is None or (chosen.masked and strength == 1)
    clean = None if from_noise else model.vae.encode(mx.array(picture(chosen.size)))
    seeds = [SEED + image for image in range(chosen.images)]
    *_, last = denoiser.run(seeds, clean)
    return last.latents


def with_unet(model: DiffusionModel, name: str | None) -> DiffusionModel:
    return model if name is None else replace(model, unet=load(kept.component(f"unet/{name}")))


def deviations(model: DiffusionModel, name: str) -> tuple[float, float]:
    """Return the deviation of a run's latents, and of the pixels that they decode to."""
    latents = run(with_unet(model, RUNS[name].unet), RUNS[name])
    answers = kept.answers("pipelines")
    pixels = kept.channels_first(model.vae.decode(latents))[..., ::4, ::4]
    return (
        kept.deviation(kept.channels_first(latents), answers[f"{name}/latents"]),
        kept.deviation(pixels, answers[f"{name}/pixels"]),
    )


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_as_diffusers_pipeline_does(image_model: Load, name: str) -> None:
    latents, pixels = deviations(image_model(RUNS[name].folder), name)
    assert latents < TOLERANCE
    assert pixels < PIXEL_TOLERANCE


@pytest.mark.parametrize("name", ["sd1-ddim", "sdxl-euler"])
def test_an_old_folder_is_the_same_model(image_model: Load, name: str) -> None:
    latents, pixels = deviations(image_model(f"{RUNS[name].folder}-old"), name)
    assert latents < TOLERANCE
    assert pixels < PIXEL_TOLERANCE
