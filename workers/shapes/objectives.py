"""What the two stages of the training minimise.

The rule this module protects: a step's random numbers depend on the seed and the step alone. Which
pictures, captions and timesteps it sees is drawn on the host, its noise from a key on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np
from mlx import nn
from numpy.typing import NDArray

from workers.diffusion.clip import ClipTextModel
from workers.diffusion.unet import UNet2DConditionModel
from workers.diffusion.vae import AutoencoderKL
from workers.shapes.sizes import BETA_END, BETA_START, TIMESTEPS

KL_WEIGHT = 1e-6
EMPTY_SHARE = 0.1

# Half of the timesteps are among those in which a picture is not yet to be seen. Only there does
# the caption decide which object comes where; in the others the noisy latents show it.
NOISY_SHARE, NOISY_FROM = 0.5, 800


class Objective(Protocol):
    """One stage: its network, what it trains on, and its loss.

    ``data`` stays on the device. ``draw`` gives a step's choices as whole numbers, and ``loss``
    reads ``data`` by them. The network that ``loss`` uses is ``module``, whose parameters the
    caller sets.
    """

    @property
    def module(self) -> nn.Module:
        """The network."""

    @property
    def data(self) -> list[mx.array]:
        """What is trained on, as ``loss`` takes it."""

    def draw(self, generator: np.random.Generator, batch: int) -> NDArray[np.int32]:
        """Return the choices of one step, of shape (any, ``batch``)."""

    def loss(self, data: Sequence[mx.array], choices: mx.array, key: mx.array) -> mx.array:
        """Return the loss, a scalar in float32."""


@dataclass(frozen=True, kw_only=True)
class VaeObjective:
    """L1 and squared error of the reconstruction, and a little KL divergence from N(0, 1).

    Errors are means over pixels (-1 to 1) and channels; the divergence (Kingma and Welling 2014,
    arXiv:1312.6114, appendix B) is the sum over a picture's latents, as Rombach et al. 2022
    (arXiv:2112.10752, appendix G) take it, weighted with 1e-6. ``pictures``:
    (N, S, S, 3), 0 to 255.
    """

    module: AutoencoderKL
    pictures: mx.array

    @property
    def data(self) -> list[mx.array]:
        """The pictures."""
        return [self.pictures]

    def draw(self, generator: np.random.Generator, batch: int) -> NDArray[np.int32]:
        """Choose pictures."""
        return generator.integers(len(self.pictures), size=(1, batch), dtype=np.int32)

    def loss(self, data: Sequence[mx.array], choices: mx.array, key: mx.array) -> mx.array:
        """Return the mean loss of the chosen pictures."""
        pictures = to_network(data[0][choices[0]])
        mean, logvar = self.module.moments(pictures.astype(_dtype(self.module)))
        noise = mx.random.normal(mean.shape, dtype=mx.float32, key=key).astype(mean.dtype)
        latents = mean + mx.exp(0.5 * logvar) * noise
        error = self.module.decode(latents).astype(mx.float32) - pictures
        mean, logvar = mean.astype(mx.float32), logvar.astype(mx.float32)
        divergence = 0.5 * (mx.square(mean) + mx.exp(logvar) - 1 - logvar).sum() / len(pictures)
        return mx.abs(error).mean() + mx.square(error).mean() + KL_WEIGHT * divergence


class TextToVelocity(nn.Module):
    """UNet and text encoder as one network to train."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: ClipTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def __call__(self, latents: mx.array, timesteps: mx.array, tokens: mx.array) -> mx.array:
        """Predict the velocity of latents (batch, y, x, channels) for tokens (batch, length)."""
        return self.unet(latents, timesteps, self.text_encoder(tokens).last)


@dataclass(frozen=True, kw_only=True)
class VelocityObjective:
    """Squared error of the predicted velocity (Salimans and Ho 2022, arXiv:2202.00512, section 4).

    Velocity is ``signal * added - noise * clean``: where nothing but noise is to be seen, minus the
    clean latents. So the caption counts there, where predicted noise would be nearly right whatever
    the caption says: trained on that, the model never learned which object comes first. A tenth of
    the captions is empty (Ho and Salimans 2022, arXiv:2207.12598).

    ``latents``: (N, y, x, channels), scaled; ``captions``: the row in ``tokens`` of each one's
    caption; ``tokens``: (captions, length), the last row the empty text.
    """

    module: TextToVelocity
    latents: mx.array
    captions: NDArray[np.int32]
    tokens: mx.array

    @property
    def data(self) -> list[mx.array]:
        """Latents, tokens, and by timestep the shares of signal and noise."""
        signal, noise = noise_levels()
        return [self.latents, self.tokens, mx.array(signal), mx.array(noise)]

    def draw(self, generator: np.random.Generator, batch: int) -> NDArray[np.int32]:
        """Choose latents, their captions or the empty one, and timesteps."""
        rows = generator.integers(len(self.latents), size=batch)
        empty = generator.random(batch) < EMPTY_SHARE
        captions = np.where(empty, len(self.tokens) - 1, self.captions[rows])
        lowest = np.where(generator.random(batch) < NOISY_SHARE, NOISY_FROM, 0)
        timesteps = generator.integers(lowest, TIMESTEPS)
        return np.stack([rows, captions, timesteps]).astype(np.int32)

    def loss(self, data: Sequence[mx.array], choices: mx.array, key: mx.array) -> mx.array:
        """Return the mean loss of the chosen latents at the chosen timesteps."""
        rows, captions, timesteps = choices[0], choices[1], choices[2]
        signal, noise = (table[timesteps][:, None, None, None] for table in data[2:])
        clean = data[0][rows]
        added = mx.random.normal(clean.shape, dtype=mx.float32, key=key)
        noisy = (signal * clean + noise * added).astype(_dtype(self.module))
        predicted = self.module(noisy, timesteps, data[1][captions])
        velocity = signal * added - noise * clean
        return mx.square(predicted.astype(mx.float32) - velocity).mean()


def noise_levels() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return for each timestep the shares of signal and noise; their squares add up to 1."""
    betas = np.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=np.float64) ** 2
    kept = np.cumprod(1 - betas)
    return np.sqrt(kept).astype(np.float32), np.sqrt(1 - kept).astype(np.float32)


def to_network(pictures: mx.array) -> mx.array:
    """Return pictures 0 to 255 as float32 from -1 to 1."""
    return pictures.astype(mx.float32) / 127.5 - 1


def from_network(pictures: mx.array) -> NDArray[np.uint8]:
    """Return pictures from -1 to 1 as 0 to 255, clipped and rounded."""
    scaled = mx.clip((pictures.astype(mx.float32) + 1) * 127.5, 0, 255)
    return np.array(mx.round(scaled).astype(mx.uint8))


def _dtype(module: nn.Module) -> mx.Dtype:
    """Return the type in which a network computes, that of its output's weights."""
    if isinstance(module, TextToVelocity):
        return module.unet.dtype
    return module.decoder.conv_out.weight.dtype
