"""Convolutions whose weights' gradients are convolutions too.

The rule this module protects: values and gradients are those of ``mx.conv2d``. MLX computes a
weight's gradient from copies of every patch of the input, nine times the input for a kernel of 3 by
3, on every device. As a convolution of the input with the output's gradient it needs no copies, and
MLX's CUDA backend knows the form and gives it to cuDNN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

Pair = tuple[int, int]
Convolution = Callable[[mx.array, mx.array], mx.array]


class DirectConv2d(nn.Conv2d):
    """``nn.Conv2d`` with direct gradients."""

    def __call__(self, x: mx.array) -> mx.array:
        """Convolve (batch, y, x, channels)."""
        convolved = _convolution(self.stride, self.padding)(x, self.weight)
        return convolved + self.bias if "bias" in self else convolved


def use_direct_gradients(module: nn.Module) -> None:
    """Replace the convolutions of ``module`` that are larger than one pixel; weights stay."""
    found = [(name, layer) for name, layer in module.named_modules() if _is_large(layer)]
    module.update_modules(tree_unflatten([(name, _direct(layer)) for name, layer in found]))


def _is_large(layer: nn.Module) -> bool:
    return type(layer) is nn.Conv2d and layer.weight.shape[1:3] != (1, 1)


def _direct(layer: Any) -> DirectConv2d:
    """Return the layer with direct gradients and the same weights."""
    outputs, height, width, inputs = layer.weight.shape
    direct = DirectConv2d(
        inputs, outputs, (height, width), layer.stride, layer.padding, bias="bias" in layer
    )
    direct.update(layer.parameters())
    return direct


@cache
def _convolution(stride: Pair, padding: Pair) -> Convolution:
    """Return a convolution of these strides and paddings, y first."""

    @mx.custom_function
    def convolve(x: mx.array, weight: mx.array) -> mx.array:
        return mx.conv2d(x, weight, stride, padding)

    @convolve.vjp
    def backward(
        primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array]:
        x, weight = primals
        return (
            _input_gradient(x, weight, cotangent, stride, padding),
            _weight_gradient(x, weight, cotangent, stride, padding),
        )

    return cast("Convolution", convolve)


def _input_gradient(
    x: mx.array, weight: mx.array, cotangent: mx.array, stride: Pair, padding: Pair
) -> mx.array:
    """Convolve the output's gradient, spread by the stride, with the mirrored kernel."""
    low = [weight.shape[1 + axis] - 1 - padding[axis] for axis in range(2)]
    high = [x.shape[1 + axis] - _span(cotangent, axis, stride) + padding[axis] for axis in range(2)]
    return mx.conv_general(
        cotangent,
        weight.swapaxes(0, 3),
        padding=(low, high),
        input_dilation=stride,
        flip=True,
    )


def _weight_gradient(
    x: mx.array, weight: mx.array, cotangent: mx.array, stride: Pair, padding: Pair
) -> mx.array:
    """Convolve the input with the output's gradient as kernel; batch and channels change places."""
    high = [
        _span(cotangent, axis, stride)
        - x.shape[1 + axis]
        + weight.shape[1 + axis]
        - padding[axis]
        - 1
        for axis in range(2)
    ]
    return mx.conv_general(
        x.swapaxes(0, 3),
        cotangent.swapaxes(0, 3),
        padding=(list(padding), high),
        kernel_dilation=stride,
    ).swapaxes(0, 3)


def _span(cotangent: mx.array, axis: int, stride: Pair) -> int:
    """Return how many input pixels lie from the first to the last place of the kernel."""
    return int(1 + stride[axis] * (cotangent.shape[1 + axis] - 1))
