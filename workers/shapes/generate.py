"""Pictures for many captions at once, with the networks, samplers and noise of a diffusion job.

The rule this module protects: a picture is the one that ``studioq diffuse`` makes of the same
caption and seed. Only the batching differs: a job has one prompt, a measurement hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from workers.diffusion.load import DiffusionModel
from workers.diffusion.noise import NoiseStream, draw_batch
from workers.diffusion.pictures import to_pixels
from workers.diffusion.samplers import make_sampler
from workers.memory import on_gpu

_BATCH_CPU, _BATCH_GPU = 16, 128


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How pictures are made; ``cfg`` 0 is without guidance."""

    cfg: float = 4.0
    steps: int = 25
    sampler: str = "ddim"


def generate(
    model: DiffusionModel, captions: Sequence[str], seeds: Sequence[int], sampling: Sampling
) -> NDArray[np.uint8]:
    """Return a picture for each caption and seed, (N, height, width, 3)."""
    size = _BATCH_GPU if on_gpu() else _BATCH_CPU
    batches = [
        _batch(model, captions[start : start + size], seeds[start : start + size], sampling)
        for start in range(0, len(captions), size)
    ]
    return np.concatenate(batches)


def _batch(
    model: DiffusionModel, captions: Sequence[str], seeds: Sequence[int], sampling: Sampling
) -> NDArray[np.uint8]:
    guided = sampling.cfg > 0
    context = _encode(model, [*([""] * len(captions) if guided else []), *captions])
    texts = model.unet.read_text(context)
    sampler = make_sampler(sampling.sampler, model.scheduler, sampling.steps)
    streams = [NoiseStream(seed) for seed in seeds]
    shape = _latent_shape(model)
    latents = sampler.start(mx.array(draw_batch(streams, shape)))
    for index, timestep in enumerate(sampler.timesteps):
        seen = sampler.scale(latents, index).astype(model.dtype)
        times = model.unet.read_times(mx.array([timestep]))
        output = model.unet.denoise(mx.concatenate([seen, seen]) if guided else seen, times, texts)
        output = output.astype(mx.float32)
        if guided:
            negative, positive = mx.split(output, 2)
            output = negative + sampling.cfg * (positive - negative)
        fresh = mx.array(draw_batch(streams, shape)) if sampler.stochastic else None
        latents = sampler.step(output, index, latents, fresh)
        mx.eval(latents)
    pictures = model.vae.decode(latents.astype(model.vae.decoder.conv_out.weight.dtype))
    return to_pixels(np.array(pictures.astype(mx.float32)))


def _encode(model: DiffusionModel, texts: Sequence[str]) -> mx.array:
    """Return the encoded texts, (texts, length, width); each fits one window."""
    encoder, tokenizer = model.text_encoders[0], model.tokenizers[0]
    windows = [tokenizer.windows(text, encoder.config.positions)[0] for text in texts]
    return encoder(mx.array(windows)).last


def _latent_shape(model: DiffusionModel) -> tuple[int, int, int]:
    (height, width), factor = model.size, model.vae.config.factor
    return height // factor, width // factor, model.vae.config.latent_channels
