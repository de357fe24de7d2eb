"""Layers with LoRA matrices beside them (Hu et al. 2021, arXiv:2106.09685).

The rule this module protects: the layer inside is untouched and shared. What LoRA adds is computed
beside it and never merged into its weights, so that a kept model stays as it was loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx
from mlx import nn

Layer: TypeAlias = nn.Linear | nn.Conv2d
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What one file adds to one layer: ``factor * up(down(x))``.

    ``down``: (rank, in), or (rank, y, x, in) for a convolution of more than one pixel.
    ``up``: (out, rank).
    """

    down: mx.array
    up: mx.array
    factor: float


class LoraLinear(nn.Module):
    """A linear layer, or a convolution of single pixels, with any number of deltas."""

    def __init__(self, base: Layer, deltas: Sequence[Delta]) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = _joined(deltas, base.weight.dtype)

    def __call__(self, x: mx.array) -> mx.array:
        """Return the base's result for (…, in) with what LoRA adds, (…, out)."""
        return self.base(x) + (x @ self.down.T) @ self.up.T


class LoraConv(nn.Module):
    """A convolution with any number of deltas, whose first matrix has the convolution's kernel."""

    def __init__(self, base: nn.Conv2d, deltas: Sequence[Delta]) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = _joined(deltas, base.weight.dtype)

    def __call__(self, x: mx.array) -> mx.array:
        """Return the base's result for (batch, y, x, in) with what LoRA adds."""
        base = self.base
        hidden = mx.conv2d(x, self.down, base.stride, base.padding, base.dilation)
        return base(x) + hidden @ self.up.T


def with_deltas(base: Layer, deltas: Sequence[Delta]) -> LoraLinear | LoraConv:
    """Return ``base`` with the deltas beside it, in the base's type."""
    if isinstance(base, nn.Conv2d) and not _is_matrix(base):
        return LoraConv(base, deltas)
    return LoraLinear(base, deltas)


def shape_of_down(base: Layer, rank: int) -> Shape:
    """Return the shape that ``Delta.down`` has for ``base``."""
    if isinstance(base, nn.Conv2d) and not _is_matrix(base):
        return (rank, *base.weight.shape[1:])
    return (rank, base.weight.shape[-1])


def _is_matrix(base: nn.Conv2d) -> bool:
    """Say whether each pixel of the result depends on the one pixel at its place."""
    plain = tuple(base.stride) == (1, 1) and tuple(base.padding) == (0, 0)
    return plain and tuple(base.weight.shape[1:3]) == (1, 1)


def _joined(deltas: Sequence[Delta], dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Return all deltas as one of their ranks' sum; factors go into the first matrix."""
    downs = [delta.down.astype(mx.float32) * delta.factor for delta in deltas]
    ups = [delta.up.astype(dtype) for delta in deltas]
    return mx.concatenate(downs).astype(dtype), mx.concatenate(ups, axis=1)
