"""The autoencoder between pictures and latents (Rombach et al. 2022, arXiv:2112.10752).

The rule this module protects: latents are scaled wherever anybody sees them, as samplers and UNets
take them. The configuration's scale and shift are applied here and nowhere else.

Pictures are (batch, height, width, 3) in -1…1, latents (batch, height / f, width / f, channels)
scaled to a standard deviation near one.
"""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from workers.diffusion.attention import PixelAttention
from workers.diffusion.configs import VaeConfig
from workers.diffusion.group_norm import GroupNorm
from workers.diffusion.layers import (
    ACTIVATIONS,
    Downsample2D,
    ResnetBlock2D,
    Upsample2D,
)

_EPS = 1e-6

# Bounds of the logarithm of the variance, as diffusers' DiagonalGaussianDistribution has them.
_LEAST_LOGVAR, _MOST_LOGVAR = -30.0, 20.0


class AutoencoderKL(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        moments = 2 * config.latent_channels
        if config.quant_conv:
            self.quant_conv = nn.Conv2d(moments, moments, 1)
        if config.post_quant_conv:
            self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)
        self.config = config

    @property
    def dtype(self) -> mx.Dtype:
        """The type in which the network computes."""
        return self.decoder.conv_norm_out.weight.dtype

    def moments(self, pictures: mx.array) -> tuple[mx.array, mx.array]:
        """Return mean and log-variance of the unscaled latents of (batch, y, x, 3)."""
        hidden = self.encoder(pictures)
        if "quant_conv" in self:
            hidden = self.quant_conv(hidden)
        mean, logvar = mx.split(hidden, 2, axis=-1)
        return mean, mx.clip(logvar, _LEAST_LOGVAR, _MOST_LOGVAR)

    def encode(self, pictures: mx.array, noise: mx.array | None = None) -> mx.array:
        """Return scaled latents of (batch, y, x, 3): a sample made with ``noise``, or the mean."""
        mean, logvar = self.moments(pictures)
        latents = mean if noise is None else mean + mx.exp(0.5 * logvar) * noise
        return (latents - self.config.shift) * self.config.scaling

    def decode(self, latents: mx.array) -> mx.array:
        """Return pictures of scaled latents (batch, y, x, channels); values can pass -1…1."""
        latents = latents / self.config.scaling + self.config.shift
        if "post_quant_conv" in self:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents)


class _Mid(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self.resnets = [_resnet(config, width, width) for _ in range(2)]
        if config.mid_attention:
            self.attentions = [PixelAttention(width, config.groups)]

    def __call__(self, x: mx.array) -> mx.array:
        x = self.resnets[0](x)
        if "attentions" in self:
            x = self.attentions[0].over_pixels(x)
        return self.resnets[1](x)


class _DownBlock(nn.Module):
    def __init__(self, config: VaeConfig, width_in: int, width: int, *, last: bool) -> None:
        super().__init__()
        self.resnets = [
            _resnet(config, width if index else width_in, width) for index in range(config.layers)
        ]
        if not last:
            self.downsamplers = [Downsample2D(width, padding=0)]

    def __call__(self, x: mx.array) -> mx.array:
        for resnet in self.resnets:
            x = resnet(x)
        return self.downsamplers[0](x) if "downsamplers" in self else x


class _UpBlock(nn.Module):
    def __init__(self, config: VaeConfig, width_in: int, width: int, *, last: bool) -> None:
        super().__init__()
        self.resnets = [
            _resnet(config, width if index else width_in, width)
            for index in range(config.layers + 1)
        ]
        if not last:
            self.upsamplers = [Upsample2D(width)]

    def __call__(self, x: mx.array) -> mx.array:
        for resnet in self.resnets:
            x = resnet(x)
        return self.upsamplers[0](x) if "upsamplers" in self else x


class _Encoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = config.channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = [
            _DownBlock(config, widths[max(0, index - 1)], width, last=index == len(widths) - 1)
            for index, width in enumerate(widths)
        ]
        self.mid_block = _Mid(config)
        self.conv_norm_out = GroupNorm(config.groups, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)
        self._act = ACTIVATIONS["silu"]

    def __call__(self, x: mx.array) -> mx.array:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(self.mid_block(x), self._act))


class _Decoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = config.channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = _Mid(config)
        self.up_blocks = [
            _UpBlock(config, widths[max(0, index - 1)], width, last=index == len(widths) - 1)
            for index, width in enumerate(widths)
        ]
        self.conv_norm_out = GroupNorm(config.groups, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)
        self._act = ACTIVATIONS["silu"]

    def __call__(self, x: mx.array) -> mx.array:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(x, self._act))


def _resnet(config: VaeConfig, width_in: int, width: int) -> ResnetBlock2D:
    return ResnetBlock2D(
        width_in, width, groups=config.groups, eps=_EPS, activation=config.activation
    )
