"""All parameters of a network as one vector, so that an optimizer is a few large operations.

The rule this module protects: a vector and a network's parameters are the same numbers in the same
order. Small networks on a GPU are bound by the number of kernels: an optimizer, gradient clipping
and a moving average for each of 400 tensors are thousands of them, on one vector a handful.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

# Parts begin at multiples of this many numbers, because kernels read aligned memory faster.
_ALIGNMENT = 32


class Layout:
    """Where each parameter of a network lies in its vector; gaps between them are zeros."""

    def __init__(self, module: nn.Module) -> None:
        self._entries: list[tuple[str, tuple[int, ...]]] = [
            (name, tuple(array.shape)) for name, array in tree_flatten(module.parameters())
        ]
        self._sizes = [math.prod(shape) for _, shape in self._entries]
        gaps = [-size % _ALIGNMENT for size in self._sizes]
        self._padded = [size + gap for size, gap in zip(self._sizes, gaps, strict=True)]
        self._gaps = [mx.zeros((gap,)) if gap else None for gap in gaps]

    @property
    def size(self) -> int:
        """The length of the vector."""
        return sum(self._padded)

    def split(self, vector: mx.array) -> list[mx.array]:
        """Return the parameters in a vector, in order, with their shapes; nothing is copied."""
        parts = mx.split(vector, np.cumsum(self._padded)[:-1].tolist())
        return [
            (part if part.size == size else part[:size]).reshape(shape)
            for part, size, (_, shape) in zip(parts, self._sizes, self._entries, strict=True)
        ]

    def join(self, leaves: Sequence[mx.array]) -> mx.array:
        """Return the vector of parameters, or of their gradients, in order."""
        pieces: list[mx.array] = []
        for leaf, gap in zip(leaves, self._gaps, strict=True):
            pieces.append(leaf.reshape(-1))
            if gap is not None:
                pieces.append(gap.astype(leaf.dtype))
        return mx.concatenate(pieces)

    def tree(self, leaves: Sequence[mx.array]) -> Any:
        """Return parameters as the nested form that ``Module.update`` takes."""
        names = [name for name, _ in self._entries]
        return tree_unflatten(list(zip(names, leaves, strict=True)))

    def named(self, vector: mx.array) -> dict[str, mx.array]:
        """Return the parameters in a vector by name."""
        names = [name for name, _ in self._entries]
        return dict(zip(names, self.split(vector), strict=True))

    def vector(self, named: Mapping[str, mx.array]) -> mx.array:
        """Return the vector of parameters given by name; one that is missing is a ``KeyError``."""
        return self.join([named[name] for name, _ in self._entries])

    def of(self, module: nn.Module) -> mx.array:
        """Return the vector of a network's present parameters."""
        return self.vector(dict(tree_flatten(module.parameters())))

    def decayed(self) -> mx.array:
        """Return 1 where weight decay applies, else 0: biases and norms have one dimension."""
        return self.join([mx.full(shape, float(len(shape) > 1)) for _, shape in self._entries])
