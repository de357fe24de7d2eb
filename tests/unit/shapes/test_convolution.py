"""Direct gradients are those of ``mx.conv2d``, for the models' strides and paddings."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from workers.shapes.convolution import DirectConv2d, use_direct_gradients


class Network(nn.Module):  # type: ignore[misc]
    def __init__(self, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=stride, padding=padding)
        self.point = nn.Conv2d(6, 2, 1)
        self.parts = [nn.Conv2d(2, 2, 3, padding=1, bias=False)]

    def __call__(self, x: mx.array) -> mx.array:
        result: mx.array = self.parts[0](self.point(mx.sin(self.conv(x))))
        return result


def gradients(network: Network, x: mx.array) -> dict[str, mx.array]:
    """Return the gradients of all parameters and of the input."""

    def loss(parameters: dict[str, object], x: mx.array) -> mx.array:
        network.update(parameters)
        return mx.square(network(x)).sum()

    function: Callable[..., tuple[dict[str, object], mx.array]] = mx.grad(loss, argnums=(0, 1))
    parameters = network.parameters()
    of_parameters, of_input = function(parameters, x)
    network.update(parameters)
    return {**dict(tree_flatten(of_parameters)), "input": of_input}


@pytest.mark.parametrize(
    ("stride", "padding", "size"),
    [(1, 1, 8), (1, 0, 9), (2, 1, 8), (2, 1, 9), (2, 0, 9), (2, 0, 8)],
)
def test_values_and_gradients_are_the_same(stride: int, padding: int, size: int) -> None:
    mx.random.seed(stride + padding + size)
    network = Network(stride, padding)
    x = mx.random.normal((2, size, size + 2, 3))
    value, wanted = network(x), gradients(network, x)
    use_direct_gradients(network)
    assert mx.allclose(network(x), value, atol=1e-6)
    found = gradients(network, x)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert mx.allclose(found[name], gradient, rtol=1e-4, atol=1e-4), name


def test_only_kernels_of_several_pixels_are_replaced_and_names_stay() -> None:
    network = Network(1, 1)
    names = [name for name, _ in tree_flatten(network.parameters())]
    use_direct_gradients(network)
    assert [name for name, _ in tree_flatten(network.parameters())] == names
    assert type(network.conv) is type(network.parts[0]) is DirectConv2d
    assert type(network.point) is nn.Conv2d
