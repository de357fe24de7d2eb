"""Large pictures in tiles: no seam, nothing moved."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest

from tests.unit.diffusion import tiny
from workers.diffusion.layers import repeat_pixels
from workers.diffusion.tiling import Tiles, starts, tiled
from workers.events import SafePoint

SIZES = [(8, 8), (10, 38), (40, 26), (9, 50)]


def whole(tiles: Tiles) -> tuple[mx.array, int]:
    """Return what comes of the tiles, and at how many safe points."""
    points = 0
    while True:
        try:
            assert next(tiles) == SafePoint()
            points += 1
        except StopIteration as end:
            return end.value, points


def picture(height: int, width: int) -> mx.array:
    return mx.array(tiny.normal(f"tiles/{height}x{width}", (2, height, width, 3)))


@pytest.mark.parametrize("size", SIZES)
def test_tiles_of_what_changes_nothing_give_the_picture(size: tuple[int, int]) -> None:
    x = picture(*size)
    found, _ = whole(tiled(lambda part: part, x, 1, tile=8, overlap=3))
    assert np.allclose(found, x, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_that_grow_or_shrink_stay_in_place(size: tuple[int, int]) -> None:
    small = picture(*size)
    large = repeat_pixels(small)
    grown, _ = whole(tiled(repeat_pixels, small, 2, tile=8, overlap=3))
    assert np.allclose(grown, large, atol=1e-6)
    shrunk, _ = whole(tiled(lambda part: part[:, ::2, ::2], large, 1 / 2, tile=16, overlap=6))
    assert np.allclose(shrunk, small, atol=1e-6)


def test_every_tile_is_a_safe_point_before_the_next_begins() -> None:
    begun: list[int] = []

    def network(part: mx.array) -> mx.array:
        begun.append(len(begun) + 1)
        return part

    tiles = tiled(network, picture(10, 38), 1, tile=8, overlap=3)
    next(tiles)
    assert begun == [1]
    _, points = whole(tiles)
    assert begun == list(range(1, points + 2))
    assert len(begun) == len(starts(10, 8, 3)) * len(starts(38, 8, 3))


@pytest.mark.parametrize("length", [8, 9, 13, 100, 1001])
@pytest.mark.parametrize("step", [1, 8])
def test_tiles_cover_a_side_and_overlap(length: int, step: int) -> None:
    tile, overlap = 8 * step, 3 * step
    found = starts(length * step, tile, overlap, step)
    assert found[0] == 0
    assert found[-1] + tile == max(length * step, tile)
    assert all(start % step == 0 for start in found)
    assert all(after - before <= tile - overlap for before, after in pairwise(found))
