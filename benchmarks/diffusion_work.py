"""Counts the arithmetic of one forward pass of a UNet from its configuration.

The rule this module protects: what is counted is the whole forward pass as diffusers does it, so
that every program that computes it is measured with the same number. One multiplication with its
addition is two operations; norms, activations and softmax are left out. studioq computes the text's
keys and values and the embedded times once for all steps (0.5 % of SD 2.1), and still is credited
with them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workers.diffusion.configs import UNetConfig

TEXT_LENGTH = 77


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations, by what does them."""

    convolutions: int = 0
    linears: int = 0
    attention: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            convolutions=self.convolutions + other.convolutions,
            linears=self.linears + other.linears,
            attention=self.attention + other.attention,
        )

    @property
    def total(self) -> int:
        """All operations."""
        return self.convolutions + self.linears + self.attention


def unet_work(config: UNetConfig, height: int, width: int, text_length: int = TEXT_LENGTH) -> Work:
    """Return the work for one row of a batch: latents of ``height`` by ``width``, one prompt."""
    parts = _Counter(config, text_length).parts(height, width)
    return sum(parts, start=Work())


class _Counter:
    """Walks through the blocks as ``UNet2DConditionModel`` builds them."""

    def __init__(self, config: UNetConfig, text_length: int) -> None:
        self._config = config
        self._text = text_length

    def parts(self, height: int, width: int) -> Iterator[Work]:
        """Yield the work of each layer."""
        config, first = self._config, self._config.channels[0]
        sides = self._sides(height, width)
        yield _convolution(sides[0], config.in_channels, first, config.kernel_in)
        yield from self._times()
        for block, size in enumerate(sides):
            yield from self._down(block, size, sides[min(block + 1, len(sides) - 1)])
        yield from self._middle(sides[-1])
        for index, size in enumerate(reversed(sides)):
            yield from self._up(index, size, sides[max(0, len(sides) - 2 - index)])
        yield _convolution(sides[0], first, config.out_channels, config.kernel_out)

    def _sides(self, height: int, width: int) -> list[int]:
        """Return the number of pixels in each block, halved (rounded up if padded) between."""
        pixels = []
        for _ in self._config.channels:
            pixels.append(height * width)
            more = 1 if self._config.downsample_padding else 0
            height, width = (height + more) // 2, (width + more) // 2
        return pixels

    def _times(self) -> Iterator[Work]:
        config = self._config
        inputs = [config.channels[0]] + ([config.text_time[1]] if config.text_time else [])
        if config.time_cond_dim is not None:
            yield _linear(1, config.time_cond_dim, config.channels[0])
        for width in inputs:
            yield _linear(1, width, config.time_dim) + _linear(1, config.time_dim, config.time_dim)

    def _down(self, block: int, pixels: int, pixels_after: int) -> Iterator[Work]:
        config, width = self._config, self._config.channels[block]
        before = config.channels[max(0, block - 1)]
        for layer in range(config.layers[block]):
            yield self._resnet(pixels, width if layer else before, width)
        if config.down_types[block].startswith("CrossAttn"):
            for depth in config.transformer_layers[block]:
                yield from self._transformer(block, pixels, depth, config.only_cross[block])
        if block < len(config.channels) - 1:
            yield _convolution(pixels_after, width, width, 3)

    def _middle(self, pixels: int) -> Iterator[Work]:
        config, width = self._config, self._config.channels[-1]
        if config.mid_type is None:
            return
        yield self._resnet(pixels, width, width)
        if config.mid_type == "UNetMidBlock2DCrossAttn":
            last = len(config.channels) - 1
            yield from self._transformer(last, pixels, config.transformer_layers[-1][0], False)
            yield self._resnet(pixels, width, width)

    def _up(self, index: int, pixels: int, pixels_after: int) -> Iterator[Work]:
        config, blocks = self._config, len(self._config.channels)
        block = blocks - 1 - index
        width = config.channels[block]
        before = config.channels[min(block + 1, blocks - 1)]
        count = config.layers[block] + 1
        for layer in range(count):
            last = layer == count - 1
            skip = config.channels[max(0, block - 1)] if last else width
            yield self._resnet(pixels, (width if layer else before) + skip, width)
        if config.up_types[index].startswith("CrossAttn"):
            for depth in config.up_transformer_layers[index]:
                yield from self._transformer(block, pixels, depth, config.only_cross[block])
        if block:
            yield _convolution(pixels_after, width, width, 3)

    def _resnet(self, pixels: int, width_in: int, width: int) -> Work:
        shortcut = _convolution(pixels, width_in, width, 1) if width_in != width else Work()
        two = _convolution(pixels, width_in, width, 3) + _convolution(pixels, width, width, 3)
        return two + shortcut + _linear(1, self._config.time_dim, width)

    def _transformer(self, block: int, pixels: int, depth: int, only_cross: bool) -> Iterator[Work]:
        config, width = self._config, self._config.channels[block]
        project = _linear if config.linear_projection else _pointwise
        yield project(pixels, width, width) + project(pixels, width, width)
        text = (self._text, config.cross_dims[block])
        for _ in range(depth):
            yield _attention(pixels, width, *(text if only_cross else (pixels, width)))
            yield _attention(pixels, width, *text)
            yield _linear(pixels, width, 8 * width) + _linear(pixels, 4 * width, width)


def _convolution(pixels_out: int, width_in: int, width: int, kernel: int) -> Work:
    return Work(convolutions=2 * pixels_out * kernel * kernel * width_in * width)


def _pointwise(pixels: int, width_in: int, width: int) -> Work:
    return _convolution(pixels, width_in, width, 1)


def _linear(rows: int, width_in: int, width: int) -> Work:
    return Work(linears=2 * rows * width_in * width)


def _attention(queries: int, width: int, keys: int, context_width: int) -> Work:
    """Return the work of the four projections, the scores and the weighted sum."""
    own = _linear(queries, width, width) + _linear(queries, width, width)
    context = _linear(keys, context_width, width) + _linear(keys, context_width, width)
    return own + context + Work(attention=4 * queries * keys * width)
