"""Large pictures in tiles: no seam, nothing moved."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest

from tests.unit.diffusion import tiny
from workers.diffusion.layers import repeat_pixels
from workers.diffusion.tiling import starts, tiled

SIZES = [(8, 8), (10, 38), (40, 26), (9, 50)]


def picture(height: int, width: int) -> mx.array:
    return mx.array(tiny.normal(f"tiles/{height}x{width}", (2, height, width, 3)))


@pytest.mark.parametrize("size", SIZES)
def test_tiles_of_what_changes_nothing_give_the_picture(size: tuple[int, int]) -> None:
    x = picture(*size)
    assert np.allclose(tiled(lambda part: part, x, scale=1, tile=8, overlap=3), x, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_that_grow_or_shrink_stay_in_place(size: tuple[int, int]) -> None:
    small = picture(*size)
    large = repeat_pixels(small)
    grown = tiled(repeat_pixels, small, scale=2, tile=8, overlap=3)
    assert np.allclose(grown, large, atol=1e-6)
    shrunk = tiled(lambda part: part[:, ::2, ::2], large, scale=1 / 2, tile=16, overlap=6)
    assert np.allclose(shrunk, small, atol=1e-6)


@pytest.mark.parametrize("length", [8, 9, 13, 100, 1001])
@pytest.mark.parametrize("step", [1, 8])
def test_tiles_cover_a_side_and_overlap(length: int, step: int) -> None:
    tile, overlap = 8 * step, 3 * step
    found = starts(length * step, tile, overlap, step)
    assert found[0] == 0
    assert found[-1] + tile == max(length * step, tile)
    assert all(start % step == 0 for start in found)
    assert all(after - before <= tile - overlap for before, after in pairwise(found))
