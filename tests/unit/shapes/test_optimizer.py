"""The vector optimizer is AdamW, and a vector is the network's parameters."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn, optimizers
from mlx.utils import tree_flatten

from workers.shapes.flat import Layout
from workers.shapes.optimizer import BETAS, EPS, Rates, State, advance

DECAY = 0.05


class Network(nn.Module):  # type: ignore[misc]
    """Odd sizes, so that the vector has gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.parts = [nn.Linear(7, 3), nn.LayerNorm(3)]


def gradients(layout: Layout, step: int) -> mx.array:
    drawn = np.random.Generator(np.random.PCG64(step)).standard_normal(layout.size)
    named = layout.named(mx.array(drawn.astype(np.float32)))
    return layout.vector(named)


def test_a_vector_has_every_parameter_once_and_zeros_between() -> None:
    network = Network()
    layout = Layout(network)
    vector = layout.of(network)
    named = dict(tree_flatten(network.parameters()))
    assert layout.size == vector.size
    assert layout.size % 32 == 0
    assert layout.named(vector).keys() == named.keys()
    for name, array in layout.named(vector).items():
        assert mx.array_equal(array, named[name])
    ones = layout.join([mx.ones_like(leaf) for leaf in layout.split(vector)])
    assert ones.sum().item() == sum(array.size for array in named.values())


def test_a_tree_of_a_vector_is_what_the_network_takes() -> None:
    network = Network()
    layout = Layout(network)
    network.update(layout.tree(layout.split(mx.full((layout.size,), 2.0))))
    assert all((array == 2).all().item() for _, array in tree_flatten(network.parameters()))


def test_a_missing_parameter_is_an_error() -> None:
    layout = Layout(Network())
    with pytest.raises(KeyError, match=r"conv\.bias"):
        layout.vector({"conv.weight": mx.zeros((5, 3, 3, 3))})


def test_steps_are_those_of_adamw_where_nothing_is_clipped() -> None:
    mx.random.seed(3)
    network = Network()
    layout = Layout(network)
    state = State.begin(layout.of(network))
    reference = optimizers.AdamW(
        0.01, betas=list(BETAS), eps=EPS, weight_decay=DECAY, bias_correction=True
    )
    # AdamW of MLX decays everything, so everything decays here too.
    decayed = mx.full((layout.size,), DECAY)
    rates = Rates(learning_rate=0.01, steps=10_000_000, warmup=0, average=0.5)
    named = layout.named(state.weights)
    for step in range(5):
        gradient = gradients(layout, step)
        state, _ = advance(state, gradient, mx.array(rates.at(step, 0)), decayed, 1e9)
        named = reference.apply_gradients(layout.named(gradient), named)
    assert mx.allclose(state.weights, layout.vector(named), rtol=1e-5, atol=1e-7)


def test_a_long_gradient_is_scaled_to_the_limit_and_its_norm_told() -> None:
    layout = Layout(Network())
    state = State.begin(mx.zeros((layout.size,)))
    gradient = gradients(layout, 1)
    rates, none = mx.array([0.0, 1.0, 1.0, 0.0]), mx.zeros((layout.size,))
    long, norm = advance(state, gradient, rates, none, 0.5)
    assert norm.item() == pytest.approx(float(mx.linalg.norm(gradient)), rel=1e-5)
    assert float(mx.linalg.norm(long.first)) == pytest.approx(0.1 * 0.5, rel=1e-4)
    short, _ = advance(state, gradient, rates, none, 1e6)
    assert mx.allclose(short.first, 0.1 * gradient)


def test_the_average_follows_the_weights() -> None:
    ones = mx.ones((32,))
    state = State(weights=ones, first=mx.zeros((32,)), second=ones, average=mx.zeros((32,)))
    later, _ = advance(state, mx.zeros((32,)), mx.array([0.0, 1.0, 1.0, 0.9]), ones, 1.0)
    assert mx.allclose(later.average, mx.full((32,), 0.1))


def test_biases_and_norms_do_not_decay() -> None:
    layout = Layout(Network())
    named = layout.named(layout.decayed())
    assert {name for name, array in named.items() if array.min().item() == 1} == {
        "conv.weight",
        "parts.0.weight",
    }
    assert {name for name, array in named.items() if array.max().item() == 0} == {
        "conv.bias",
        "parts.0.bias",
        "parts.1.weight",
        "parts.1.bias",
    }


def test_the_learning_rate_rises_and_falls_to_its_end() -> None:
    rates = Rates(learning_rate=1.0, steps=1000, warmup=100, final_share=0.01)
    course = [rates.at(step, 0)[0] for step in range(1000)]
    assert course[0] == pytest.approx(0.01)
    assert max(course) == pytest.approx(1 - 0.99 * (1 - math.cos(math.pi * 0.1)) / 2, abs=0.005)
    assert course[500] == pytest.approx(0.505, abs=0.01)
    assert course[-1] == pytest.approx(0.01, abs=1e-4)


def test_time_or_steps_end_a_stage_and_the_rate_with_it() -> None:
    rates = Rates(learning_rate=1.0, steps=1000, minutes=2, warmup=0)
    assert rates.spent(100, 60) == 0.5
    assert rates.spent(700, 60) == 0.7
    assert rates.spent(0, 150) == rates.spent(1500, 0) == 1
    assert rates.at(10, 119.9)[0] == pytest.approx(rates.at(999, 0)[0], abs=1e-3)
    assert Rates(learning_rate=1.0, steps=10).spent(5, 1e9) == 0.5


def test_the_average_of_the_first_steps_is_short() -> None:
    rates = Rates(learning_rate=1.0, steps=100_000, average=0.999)
    keeps = [rates.at(step, 0)[3] for step in (0, 10, 100, 100_000)]
    assert keeps == sorted(keeps)
    assert keeps[0] < 0.2
    assert keeps[-1] == 0.999
