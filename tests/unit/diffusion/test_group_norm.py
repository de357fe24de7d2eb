"""Group normalisation gives what its definition says, in each way and type."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from workers.diffusion import group_norm
from workers.diffusion.group_norm import GroupNorm, by_products, by_rows

EPS = 1e-5
WAYS = {"rows": by_rows, "products": by_products}

# The distance from 1 to the next number of each type; in float32 the sums' roundings exceed it.
ULPS = {"float32": 2.0**-20, "float16": 2.0**-10, "bfloat16": 2.0**-7}

SHAPES = [(2, 4096, 64), (1, 1024, 320), (3, 35, 96), (2, 1, 320)]
OFFSETS_AND_SCALES = [
    (0.0, 1.0),
    (3.0, 0.1),
    (100.0, 30.0),
    (-40.0, 800.0),
    (0.0, 0.003),
    (0.0, 6000.0),
]


def by_definition(
    x: NDArray[np.float64], groups: int, weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> NDArray[np.float64]:
    cells = x.reshape(x.shape[0], x.shape[1], groups, -1)
    mean = cells.mean(axis=(1, 3), keepdims=True)
    variance = cells.var(axis=(1, 3), keepdims=True)
    normed: NDArray[np.float64] = ((cells - mean) / np.sqrt(variance + EPS)).reshape(x.shape)
    return normed * weight + bias


def drawn(shape: tuple[int, ...], offset: float, scale: float, dtype: str) -> mx.array:
    values = np.random.default_rng(len(shape)).standard_normal(shape) * scale + offset
    return mx.array(values.astype(np.float32)).astype(getattr(mx, dtype))


def exact(x: mx.array) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.array(x.astype(mx.float32)).astype(np.float64)
    return values


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ULPS)
@pytest.mark.parametrize(("offset", "scale"), OFFSETS_AND_SCALES)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_way_does_what_the_definition_says(
    way: str, dtype: str, offset: float, scale: float, shape: tuple[int, int, int]
) -> None:
    x = drawn(shape, offset, scale, dtype)
    weight, bias = drawn(shape[-1:], 1, 0.5, dtype), drawn(shape[-1:], 0, 1, dtype)
    given = WAYS[way](x, 32, weight, bias, EPS)
    right = by_definition(exact(x), 32, exact(weight), exact(bias))
    assert given.dtype == x.dtype
    error = np.abs(exact(given.reshape(shape)) - right).max()
    # A rounded input far from 0 is that much coarser in units of its deviation.
    assert error < ULPS[dtype] * (4 + abs(offset) / scale) * np.abs(right).max()


@pytest.mark.parametrize("way", WAYS)
def test_one_far_number_does_not_silence_its_group(way: str) -> None:
    x = np.random.default_rng(1).standard_normal((1, 4096, 32)).astype(np.float16)
    x[0, 7, :] = 30_000
    given = WAYS[way](mx.array(x), 32, mx.ones((32,)), mx.zeros((32,)), EPS)
    right = by_definition(x.astype(np.float64), 32, np.ones(32), np.zeros(32))
    assert np.abs(exact(given.reshape(x.shape)) - right).max() < 0.01 * np.abs(right).max()


def test_products_are_for_large_images_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def products(x: mx.array, *_: object) -> mx.array:
        used.append(str(x.shape))
        return x

    monkeypatch.setattr(group_norm, "by_products", products)
    norm = GroupNorm(4, 8, EPS)
    large = mx.zeros((1, 1000, 1000, 8))
    norm(large)
    assert used == []
    monkeypatch.setattr(group_norm, "device_kind", lambda: "cuda")
    norm(large[:, :500])
    assert used == []
    norm(large)
    assert len(used) == 1


@pytest.mark.parametrize("way", WAYS)
def test_an_even_picture_becomes_its_bias(way: str) -> None:
    x = mx.full((1, 256, 64), 7.0, dtype=mx.float16)
    given = WAYS[way](x, 32, mx.ones((64,)), mx.full((64,), 0.5), EPS)
    assert np.array(given.reshape(x.shape)) == pytest.approx(0.5, abs=1e-3)


def test_shape_and_type_stay_and_the_activation_comes_last() -> None:
    norm = GroupNorm(4, 8, EPS)
    norm.set_dtype(mx.bfloat16)
    x = mx.random.normal((2, 3, 5, 8)).astype(mx.bfloat16)
    given = norm(x, lambda normed: mx.maximum(normed, 0))
    assert given.shape == x.shape
    assert given.dtype == mx.bfloat16
    assert mx.array_equal(given, mx.maximum(norm(x), 0))
