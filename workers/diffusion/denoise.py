"""The loop from noise to latents, one batch at a time.

The rule this module protects: one step is one safe point. While a step is computed the next is
already queued, so the device never waits for Python; a cancelled job wastes that one step at most.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from workers.diffusion.attention import KeysValues
from workers.diffusion.layers import sinusoids
from workers.diffusion.load import DiffusionModel
from workers.diffusion.noise import NoiseStream, draw_batch
from workers.diffusion.prompts import Conditions
from workers.diffusion.samplers import Sampler
from workers.diffusion.unet import Added, UNet2DConditionModel

# What diffusers multiplies a distilled model's guidance with before it is embedded.
_GUIDANCE_SCALE = 1000.0


Steps = Generator["Step", None, None]


@dataclass(frozen=True, kw_only=True)
class Repaint:
    """What to keep of a picture: ``clean`` latents and a ``mask`` (1: repaint), (1, y, x, c)."""

    clean: mx.array
    mask: mx.array
    masked: mx.array | None = None

    @property
    def channels(self) -> mx.array | None:
        """What an inpainting UNet takes beside the latents: the mask and the masked picture."""
        if self.masked is None:
            return None
        return mx.concatenate([self.mask, self.masked], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One finished step of a batch: ``latents`` (n, y, x, c) after it, ``clean`` as guessed."""

    index: int
    latents: mx.array
    clean: mx.array


class Denoiser:
    """Denoises batches under the same conditions."""

    def __init__(
        self,
        model: DiffusionModel,
        conditions: Conditions,
        sampler: Sampler,
        *,
        cfg: float,
        size: tuple[int, int],
        repaint: Repaint | None = None,
    ) -> None:
        """Prepare all that is the same for every batch. ``size``: height and width in pixels."""
        self._model = model
        self._sampler = sampler
        self._repaint = repaint
        factor = model.vae.config.factor
        self._shape = (size[0] // factor, size[1] // factor, model.vae.config.latent_channels)
        self._rows = conditions.context.shape[0]
        model.unet.fuse()
        self._texts = model.unet.read_text(conditions.context)
        self._times, self._widths = _all_times(model.unet, conditions, sampler.timesteps, cfg, size)
        self._predict = self._compiled(cfg)
        mx.eval(self._texts, self._times)

    def run(self, seeds: Sequence[int], clean: mx.array | None = None) -> Steps:
        """Denoise one image for each seed; ``clean``: the latents to start from, (1, y, x, c)."""
        streams = [NoiseStream(seed) for seed in seeds]
        noise = self._draw(streams)
        latents = self._sampler.start(noise, clean)
        texts = _for_batch(self._texts, len(seeds))
        waiting: Step | None = None
        for index in range(len(self._sampler.timesteps)):
            step = self._advance(index, latents, noise, streams, texts)
            latents = step.latents
            mx.async_eval(step.latents, step.clean)  # type: ignore[no-untyped-call]
            if waiting is not None:
                yield _finished(waiting)
            waiting = step
        if waiting is not None:
            yield _finished(waiting)

    def _advance(
        self,
        index: int,
        latents: mx.array,
        noise: mx.array,
        streams: Sequence[NoiseStream],
        texts: Sequence[mx.array],
    ) -> Step:
        """Return what step ``index`` makes of the latents, not yet evaluated."""
        seen = self._sampler.scale(latents, index)
        output = self._predict(seen, self._times[index], texts)
        clean = self._sampler.denoised(output, index, latents)
        fresh = self._draw(streams) if self._sampler.needs_noise(index) else None
        latents = self._sampler.step(output, index, latents, fresh)
        if self._repaint is not None and self._repaint.masked is None:
            mask = self._repaint.mask
            kept = self._sampler.noised(self._repaint.clean, noise, index + 1)
            latents = mx.where(mask > 0.5, latents, kept)
        return Step(index=index, latents=latents, clean=clean)

    def _draw(self, streams: Sequence[NoiseStream]) -> mx.array:
        return mx.array(draw_batch(streams, self._shape))

    def _compiled(self, cfg: float) -> Callable[..., mx.array]:
        """Return the prediction for (latents, times, texts) as one compiled function."""
        unet, widths, rows = self._model.unet, self._widths, self._rows
        beside = self._repaint.channels if self._repaint is not None else None

        def predict(latents: mx.array, times: mx.array, texts: Sequence[mx.array]) -> mx.array:
            times = mx.repeat(times, latents.shape[0], axis=0) if len(times) > 1 else times
            if beside is not None:
                spread = mx.broadcast_to(beside, (*latents.shape[:3], beside.shape[-1]))
                latents = mx.concatenate([latents, spread], axis=-1)
            seen = mx.concatenate([latents] * rows).astype(unet.dtype)
            split = list(mx.split(times[:, None, None, :], widths, axis=-1))
            pairs = list(zip(texts[::2], texts[1::2], strict=True))
            output = unet.denoise(seen, split, pairs).astype(mx.float32)
            if rows == 1:
                return output
            negative, positive = mx.split(output, 2)
            return negative + cfg * (positive - negative)

        compiled: Callable[..., mx.array] = mx.compile(predict)
        return compiled


def _all_times(
    unet: UNet2DConditionModel,
    conditions: Conditions,
    timesteps: Sequence[float],
    cfg: float,
    size: tuple[int, int],
) -> tuple[mx.array, list[int]]:
    """Return every step's projected times, (steps, rows, widths together), and where to split.

    There is one row for all images, or, where the pooled text enters (SDXL), one for each prompt.
    """
    added = conditions.added(size)
    rows = added.pooled.shape[0] if added is not None else 1
    steps = mx.repeat(mx.array(list(timesteps), dtype=mx.float32), rows)
    if added is not None:
        pooled, sizes = (mx.tile(part, (len(timesteps), 1)) for part in (added.pooled, added.sizes))
        added = Added(pooled=pooled, sizes=sizes)
    guidance = None
    if unet.config.time_cond_dim is not None:
        guidance = guidance_embedding(cfg, unet.config.time_cond_dim).astype(unet.dtype)
    times = unet.read_times(steps, added, guidance)
    widths = np.cumsum([part.shape[-1] for part in times])[:-1]
    parts = [part.reshape(len(timesteps), rows, part.shape[-1]) for part in times]
    joined = mx.concatenate(parts, axis=-1)
    return joined, [int(width) for width in widths]


def guidance_embedding(cfg: float, width: int) -> mx.array:
    """Return a distilled model's embedded guidance, (1, width).

    See Meng et al. 2022, arXiv:2210.03142; the numbers are those of diffusers'
    ``get_guidance_scale_embedding`` of ``cfg`` - 1. A ``cfg`` of 0 means none, as 1 does.
    """
    scaled = mx.array([((cfg or 1) - 1) * _GUIDANCE_SCALE])
    return sinusoids(scaled, width, flip_sin_to_cos=False, freq_shift=1)


def _for_batch(texts: Sequence[KeysValues], count: int) -> list[mx.array]:
    """Return keys and values, one after the other, with ``count`` equal rows for each prompt."""
    return [mx.repeat(array, count, axis=0) for pair in texts for array in pair]


def _finished(step: Step) -> Step:
    mx.eval(step.latents, step.clean)
    return step
