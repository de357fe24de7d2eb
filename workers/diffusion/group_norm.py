"""Group normalisation of channels-last images, in two ways that give the same numbers.

The rule this module protects: statistics are as good as the input, whatever its type. Sums are
accumulated in float32, only means are rounded, and squares have float32's range.

``by_rows`` puts each group into a row of its own, which costs a pass with strided reads.
``by_products`` leaves everything in its place: sums are matrix products with ones, which GPUs do at
the speed of their memory. It takes more launches, so it is for large images. On one H100 (Stable
Diffusion 2.1's UNet in float16, step-images per second at batch 4 and 16) rows alone reach 168 and
197, products from 8 million numbers on 184 and 222.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
from mlx import nn

from workers.memory import device_kind

Activation = Callable[[mx.array], mx.array]

# How many numbers an input has from which products are worth their launches.
_LARGE = 8_000_000

# Rows of ones in a product: the least for which GPUs' libraries take their matrix units.
_ONES = 8

# A part of a sum has at least so many pixels; there are at least so many parts, if that allows it.
_PART_PIXELS, _PARTS = 64, 512


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018, arXiv:1803.08494), groups of neighbouring channels."""

    def __init__(self, groups: int, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.ones((channels,))
        self.bias = mx.zeros((channels,))
        self.groups = groups
        self.eps = eps

    def __call__(self, x: mx.array, activation: Activation | None = None) -> mx.array:
        """Normalise ``x`` of shape (batch, …, channels), and apply an activation to the result.

        In a compiled function, weight, bias and activation are one pass over the image.
        """
        normalise = by_products if _gains(x) else by_rows
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])
        normed = normalise(pixels, self.groups, self.weight, self.bias, self.eps)
        return (activation(normed) if activation else normed).reshape(x.shape)


def _gains(x: mx.array) -> bool:
    """Say whether products were seen to be faster for an image of this size on this device."""
    return x.size >= _LARGE and device_kind() == "cuda"


def by_rows(x: mx.array, groups: int, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
    """Normalise ``x`` (batch, pixels, channels); the result has one axis more, (groups, width).

    Weight and bias are applied while groups still stand first: the pass that does it also puts the
    channels back.
    """
    batch, pixels, channels = x.shape
    cells = (groups, channels // groups)
    rows = x.reshape(batch, pixels, *cells).transpose(0, 2, 1, 3).reshape(batch, groups, -1)
    rows = mx.fast.layer_norm(rows, weight=None, bias=None, eps=eps)
    back = rows.reshape(batch, groups, pixels, cells[1]).transpose(0, 2, 1, 3)
    return back * weight.reshape(cells) + bias.reshape(cells)


def by_products(x: mx.array, groups: int, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
    """Normalise ``x`` (batch, pixels, channels), with moments from products; same shape and type.

    Two passes: the mean first, then the squares of the differences from it.
    """
    batch, _, channels = x.shape
    width = channels // groups
    mean = _group_means(x, groups)
    centre = mx.repeat(mean, width, axis=-1)[:, None]
    variance = _group_means(mx.square(_differences(x, centre)), groups)
    variance = variance * 4 if x.itemsize == 2 else variance
    scale = mx.rsqrt(variance + eps)[..., None] * weight.reshape(groups, width)
    shift = bias.reshape(groups, width) - mean[..., None] * scale
    return (x * scale.reshape(batch, 1, -1) + shift.reshape(batch, 1, -1)).astype(x.dtype)


def _differences(x: mx.array, centre: mx.array) -> mx.array:
    """Return ``x - centre`` in a type whose squares have float32's range; of 16 bits, half of it.

    Halves, because float16 may not hold the difference of two of its numbers. On an H100 a
    difference in float16, then bfloat16, was faster than one in float32.
    """
    if x.itemsize != 2:
        return x - centre
    return (x * 0.5 - (centre * 0.5).astype(x.dtype)).astype(mx.bfloat16)


def _group_means(x: mx.array, groups: int) -> mx.array:
    """Return the mean of each group of (batch, pixels, channels), (batch, groups) in float32.

    Pixels are averaged in parts, each in one product with a float32 accumulator; the parts' means
    are averaged in float32.
    """
    batch, pixels, channels = x.shape
    parts = _parts(batch, pixels, channels)
    ones = mx.full((1, _ONES, pixels // parts), parts / pixels, dtype=x.dtype)
    means = (ones @ x.reshape(batch * parts, pixels // parts, channels))[:, 0]
    return means.astype(mx.float32).reshape(batch, parts, groups, -1).mean(axis=(1, 3))


def _parts(batch: int, pixels: int, channels: int) -> int:
    """Return in how many parts of equal size pixels are averaged, enough to fill a GPU."""
    parts = 1
    while (
        pixels % (2 * parts) == 0
        and pixels // (2 * parts) >= _PART_PIXELS
        and batch * parts * max(1, channels // 64) < _PARTS
    ):
        parts *= 2
    return parts
