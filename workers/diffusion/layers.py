"""Building blocks that UNet and VAE share. All images are channels-last: (batch, y, x, channels).

The rule this module protects: parameters have the names that diffusers gives them, so that a path
in a checkpoint or a LoRA file is a path in the module tree.
"""

from __future__ import annotations

import math

import mlx.core as mx
from mlx import nn

from workers.diffusion.group_norm import Activation, GroupNorm

ACTIVATIONS: dict[str, Activation] = {
    "silu": nn.silu,
    "swish": nn.silu,
    "gelu": nn.gelu,
    "mish": nn.mish,
}


class ResnetBlock2D(nn.Module):
    """Two normalised convolutions with a shortcut, and the time's projection added between them."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        groups: int,
        eps: float,
        activation: str = "silu",
        time_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, channels_in, eps)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        if time_dim is not None:
            self.time_emb_proj = nn.Linear(time_dim, channels_out)
        self.norm2 = GroupNorm(groups, channels_out, eps)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1)
        self._act = ACTIVATIONS[activation]

    def project_time(self, embedded: mx.array) -> mx.array:
        """Return what ``__call__`` adds: (batch, time_dim) to (batch, 1, 1, channels)."""
        return self.time_emb_proj(self._act(embedded))[:, None, None, :]

    def __call__(self, x: mx.array, time: mx.array | None = None) -> mx.array:
        """Apply the block; ``time`` comes from ``project_time``."""
        hidden = self.conv1(self.norm1(x, self._act))
        if time is not None:
            hidden = hidden + time
        hidden = self.conv2(self.norm2(hidden, self._act))
        shortcut = self.conv_shortcut(x) if "conv_shortcut" in self else x
        return shortcut + hidden


class Downsample2D(nn.Module):
    """Halve the resolution with a strided convolution.

    ``padding`` 0 means the VAE's way: one row and column of zeros below and to the right.
    """

    def __init__(self, channels: int, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self._asymmetric = padding == 0

    def __call__(self, x: mx.array) -> mx.array:
        """Return ``x`` at half the resolution."""
        if self._asymmetric:
            x = mx.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
        return self.conv(x)


class Upsample2D(nn.Module):
    """Double the resolution by repetition, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def __call__(self, x: mx.array, size: tuple[int, int] | None = None) -> mx.array:
        """Return ``x`` at twice the resolution, or at ``size`` (height, width) if that is given.

        Sizes that were odd on the way down take the nearest pixels: floor(i * before / after).
        """
        height, width = x.shape[1:3]
        if size is None or size == (2 * height, 2 * width):
            return self.conv(repeat_pixels(x))
        rows = mx.arange(size[0]) * height // size[0]
        columns = mx.arange(size[1]) * width // size[1]
        return self.conv(x[:, rows][:, :, columns])


def repeat_pixels(x: mx.array) -> mx.array:
    """Return every pixel of (batch, y, x, channels) as a square of two by two."""
    batch, height, width, channels = x.shape
    spread = mx.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return spread.reshape(batch, 2 * height, 2 * width, channels)


def sinusoids(
    positions: mx.array, width: int, *, flip_sin_to_cos: bool = True, freq_shift: int = 0
) -> mx.array:
    """Return sinusoidal embeddings (Vaswani et al. 2017, section 3.5) of shape (n, width), float32.

    ``flip_sin_to_cos`` puts the cosines first; ``freq_shift`` is subtracted from the number of
    frequencies in the exponent's denominator, both as in diffusers' ``get_timestep_embedding``.
    """
    half = width // 2
    exponents = mx.arange(half, dtype=mx.float32) * (-math.log(10_000) / (half - freq_shift))
    angles = positions.astype(mx.float32)[:, None] * mx.exp(exponents)[None, :]
    parts = (
        [mx.cos(angles), mx.sin(angles)] if flip_sin_to_cos else [mx.sin(angles), mx.cos(angles)]
    )
    if width % 2:
        parts.append(mx.zeros((angles.shape[0], 1)))
    return mx.concatenate(parts, axis=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers over embedded timesteps; ``cond_dim``: distilled models' guidance."""

    def __init__(
        self, width_in: int, width: int, activation: str = "silu", cond_dim: int | None = None
    ) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width)
        if cond_dim is not None:
            self.cond_proj = nn.Linear(cond_dim, width_in, bias=False)
        self.linear_2 = nn.Linear(width, width)
        self._act = ACTIVATIONS[activation]

    def __call__(self, x: mx.array, condition: mx.array | None = None) -> mx.array:
        """Embed (n, width_in), with a condition (n, cond_dim) if there is one, as (n, width)."""
        if condition is not None:
            x = x + self.cond_proj(condition)
        return self.linear_2(self._act(self.linear_1(x)))
