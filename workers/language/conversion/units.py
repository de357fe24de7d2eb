"""What a conversion does to one layer.

The rule this module protects: a layer comes out as mlx-lm's own functions would make it, whether it
is changed whole or a few rows at a time. Every change but fusing works on each row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

Arrays = dict[str, mx.array]
Fuse = Callable[[Arrays], Arrays]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How the weights of a layer are quantised, in MLX's terms."""

    group_size: int
    bits: int
    mode: str = "affine"

    def pack(self, weight: mx.array) -> Arrays:
        """Return ``weight``, (…, inputs), quantised: words, scales and, in some modes, biases."""
        parts = mx.quantize(weight, self.group_size, self.bits, mode=self.mode)
        return dict(zip(("weight", "scales", "biases"), parts, strict=False))

    def unpack(self, arrays: Mapping[str, mx.array]) -> mx.array:
        """Return what ``pack`` was given, as nearly as its bits tell."""
        return mx.dequantize(
            arrays["weight"],
            arrays["scales"],
            arrays.get("biases"),
            self.group_size,
            self.bits,
            self.mode,
        )


def packing_of(layer: nn.Module) -> Packing | None:
    """Return how the weights of ``layer`` are quantised, None if they are not."""
    if "scales" not in layer:
        return None
    return Packing(group_size=layer.group_size, bits=layer.bits, mode=layer.mode)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One layer with weights of its own, and what is to become of them.

    ``path`` is the layer's name in the network, ``leaves`` its arrays' (weight, bias, …).
    ``unpack``: undo this quantisation, or ``fuse`` an adapter; then ``cast`` what is floating
    point, but for the arrays in ``uncast``; then ``pack`` the weight.
    """

    path: str
    leaves: tuple[str, ...]
    unpack: Packing | None = None
    fuse: Fuse | None = None
    cast: mx.Dtype | None = None
    uncast: frozenset[str] = frozenset()
    pack: Packing | None = None

    def name(self, leaf: str) -> str:
        """Return the name that a tensor of this layer has in the network."""
        return f"{self.path}.{leaf}" if self.path else leaf

    @property
    def names(self) -> list[str]:
        """The names that its tensors have in the network it is read from."""
        return [self.name(leaf) for leaf in self.leaves]

    @property
    def by_rows(self) -> bool:
        """Whether any few rows of its tensors can be changed without the others."""
        return self.fuse is None

    @property
    def unchanged(self) -> bool:
        """Whether it comes out as it goes in."""
        changes = (self.unpack, self.fuse, self.cast, self.pack)
        return all(change is None for change in changes)

    def change(self, arrays: Arrays) -> Arrays:
        """Return the layer's arrays, or rows of them, as they are to be written; lazily."""
        if self.unpack is not None:
            arrays = {**_without_packing(arrays), "weight": self.unpack.unpack(arrays)}
        if self.fuse is not None:
            arrays = self.fuse(arrays)
        arrays = {leaf: self._cast(leaf, array) for leaf, array in arrays.items()}
        if self.pack is not None:
            arrays = {**arrays, **self.pack.pack(arrays["weight"])}
        return arrays

    def _cast(self, leaf: str, array: mx.array) -> mx.array:
        if self.cast is None or leaf in self.uncast or not _is_float(array):
            return array
        return array.astype(self.cast)


def _is_float(array: mx.array) -> bool:
    return bool(mx.issubdtype(array.dtype, mx.floating))


def _without_packing(arrays: Arrays) -> Arrays:
    return {leaf: array for leaf, array in arrays.items() if leaf not in ("scales", "biases")}


def fused(adapter: Any, arrays: Arrays, *, dequantize: bool) -> Arrays:
    """Return the arrays of a layer with its adapter merged, by mlx-lm's own ``fuse``.

    ``adapter`` is mlx-lm's layer around the one whose ``arrays`` these are. A quantised layer
    comes out quantised as it was, or in full with ``dequantize``. DoRA's float32 magnitudes do not
    make a 16-bit layer one of 32 bits.
    """
    base = adapter.embedding if "embedding" in adapter else adapter.linear
    base.update(arrays)
    merged = adapter.fuse(dequantize=dequantize)
    base.update({leaf: mx.zeros(array.shape, array.dtype) for leaf, array in arrays.items()})
    wanted = _stored_type(arrays)
    return {
        leaf: array.astype(wanted) if leaf != "bias" and _is_float(array) else array
        for leaf, array in merged.items()
        if isinstance(array, mx.array)
    }


def _stored_type(arrays: Arrays) -> mx.Dtype:
    """Return the type of a layer's weights, or of what they are when they are dequantised.

    The scales of MLX's mx and nv modes are bytes; their weights dequantise to bfloat16.
    """
    if "scales" not in arrays:
        return arrays["weight"].dtype
    return arrays["scales"].dtype if _is_float(arrays["scales"]) else mx.bfloat16


def replaced(trained: Mapping[str, Callable[[], mx.array]], arrays: Arrays) -> Arrays:
    """Return the arrays of a layer with those that were trained in full, in their stored types.

    ``trained`` reads an array anew at each call, so that nothing of it is kept.
    """
    new = {leaf: read().astype(arrays[leaf].dtype) for leaf, read in trained.items()}
    return {**arrays, **new}
