"""Pictures of scenes: flat shapes with smooth edges, drawn from their signed distances.

The rule this module protects: a picture shows what its caption says and nothing that contradicts
it. Objects are whole, apart from each other, and further apart along the asked direction than
across it.

Signed distance of a point: negative inside a shape, zero on its edge, in pixels. A pixel's coverage
is ``clip(0.5 - distance, 0, 1)`` at its centre, which is exact for a straight edge along the grid.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from workers.shapes.captions import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    Scene,
    all_scenes,
    sample_training,
)

SIZE = 128
MARGIN = 4
GAP = 6
RADII_PAIR = (13.0, 24.0)
RADII_ALONE = (16.0, 36.0)

# Across the asked direction two centres differ by at most this share of what they differ along it.
SLANT = 0.5

_CHUNK = 32
_BLOCK = 1024
_COLOUR_TABLE = np.array(list(COLOURS.values()), dtype=np.float32)
_BACKGROUND_TABLE = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
_COLOUR_NAMES, _BACKGROUND_NAMES = tuple(COLOURS), tuple(BACKGROUNDS)

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the objects of N pictures are: arrays of shape (N, 2), or (N, 2, 2) for ``centres``.

    ``centres`` are x and y in pixels of the middle of an object's bounding box; ``radii`` half its
    width. A second object with radius 0 is not there.
    """

    centres: Floats
    radii: Floats


def draw(scenes: Sequence[Scene], generator: np.random.Generator, size: int = SIZE) -> Pixels:
    """Return pictures of ``scenes``, (N, ``size``, ``size``, 3), at random places and sizes.

    Places and sizes are drawn for :data:`SIZE` and scaled.
    """
    layout = place(scenes, generator)
    chunks = range(0, len(scenes), _CHUNK)
    pictures = [_paint(scenes, layout, slice(start, start + _CHUNK), size) for start in chunks]
    return np.concatenate(pictures) if pictures else np.zeros((0, size, size, 3), dtype=np.uint8)


def place(scenes: Sequence[Scene], generator: np.random.Generator) -> Layout:
    """Draw places and sizes that fit the scenes."""
    pair = np.array([scene.second is not None for scene in scenes])
    relation = np.array([RELATIONS.index(scene.relation or RELATIONS[0]) for scene in scenes])
    alone, apart = _place_alone(len(scenes), generator), _place_pairs(relation, generator)
    return Layout(
        centres=np.where(pair[:, None, None], apart.centres, alone.centres),
        radii=np.where(pair[:, None], apart.radii, alone.radii),
    )


def _place_alone(count: int, generator: np.random.Generator) -> Layout:
    radii = np.zeros((count, 2), dtype=np.float32)
    radii[:, 0] = generator.uniform(*RADII_ALONE, count)
    reach = MARGIN + radii[:, :1, None]
    share = generator.random((count, 2, 2), dtype=np.float32)
    return Layout(centres=reach + share * (SIZE - 2 * reach), radii=radii)


def _place_pairs(relation: NDArray[np.int_], generator: np.random.Generator) -> Layout:
    """Place two objects: first along the asked direction, then across it."""
    count, rows = len(relation), np.arange(len(relation))
    radii = generator.uniform(*RADII_PAIR, (count, 2)).astype(np.float32)
    along = _along(radii, generator)
    across = _across(radii, along[:, 1] - along[:, 0], generator)
    vertical, swapped = relation >= 2, relation % 2 == 1
    centres = np.zeros((count, 2, 2), dtype=np.float32)
    axis = vertical.astype(np.intp)
    for item in range(2):
        which = np.where(swapped, 1 - item, item)
        centres[rows, which, axis] = along[:, item]
        centres[rows, which, 1 - axis] = across[:, item]
    swap = np.where(swapped[:, None], radii[:, ::-1], radii)
    return Layout(centres=centres, radii=swap)


def _along(radii: Floats, generator: np.random.Generator) -> Floats:
    """Return both centres along the direction; free space goes before, between and behind."""
    free = SIZE - 2 * MARGIN - GAP - 2 * radii.sum(axis=1)
    cuts = np.sort(generator.random((len(radii), 2), dtype=np.float32), axis=1) * free[:, None]
    first = MARGIN + cuts[:, 0] + radii[:, 0]
    second = SIZE - MARGIN - (free - cuts[:, 1]) - radii[:, 1]
    return np.stack([first, second], axis=1)


def _across(radii: Floats, distance: Floats, generator: np.random.Generator) -> Floats:
    """Return both centres across the direction, at most :data:`SLANT` of ``distance`` apart."""
    low, high = MARGIN + radii, SIZE - MARGIN - radii
    share = generator.random(radii.shape, dtype=np.float32)
    first = low[:, 0] + share[:, 0] * (high[:, 0] - low[:, 0])
    nearest = np.maximum(low[:, 1], first - SLANT * distance)
    furthest = np.minimum(high[:, 1], first + SLANT * distance)
    return np.stack([first, nearest + share[:, 1] * (furthest - nearest)], axis=1)


def _paint(scenes: Sequence[Scene], layout: Layout, part: slice, size: int) -> Pixels:
    """Return the pictures of one part of the scenes."""
    chosen, scale = scenes[part], np.float32(size / SIZE)
    centres, radii = layout.centres[part] * scale, layout.radii[part] * scale
    grounds = [_BACKGROUND_NAMES.index(scene.background) for scene in chosen]
    canvas = np.empty((3, len(chosen), size, size), dtype=np.float32)
    canvas[:] = _BACKGROUND_TABLE[grounds].T[:, :, None, None]
    for item in range(2):
        rows = np.flatnonzero(radii[:, item] > 0)
        if len(rows):
            things = [chosen[row].things[item] for row in rows.tolist()]
            colours = _COLOUR_TABLE[[_COLOUR_NAMES.index(thing.colour) for thing in things]]
            shapes = np.array([SHAPES.index(thing.shape) for thing in things])
            coverage = _coverage(shapes, centres[rows, item], radii[rows, item], size)
            for channel, values in zip(canvas, colours.T, strict=True):
                under = channel[rows]
                channel[rows] = under + coverage * (values[:, None, None] - under)
    return np.ascontiguousarray(np.rint(canvas).astype(np.uint8).transpose(1, 2, 3, 0))


def _coverage(shapes: NDArray[np.int_], centres: Floats, radii: Floats, size: int) -> Floats:
    """Return how much of each pixel each object covers, (N, size, size), rows first."""
    grid = np.arange(size, dtype=np.float32) + np.float32(0.5)
    x, y = grid - centres[:, :1], grid - centres[:, 1:]
    distance = np.empty((len(radii), size, size), dtype=np.float32)
    for number, function in enumerate((_circle, _square, _triangle)):
        chosen = shapes == number
        distance[chosen] = function(x[chosen, None, :], y[chosen, :, None], radii[chosen])
    return np.clip(np.float32(0.5) - distance, 0, 1, out=distance)


def _circle(x: Floats, y: Floats, radii: Floats) -> Floats:
    return np.sqrt(x * x + y * y) - radii[:, None, None]


def _square(x: Floats, y: Floats, radii: Floats) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - radii[:, None, None]


def _triangle(x: Floats, y: Floats, radii: Floats) -> Floats:
    """Equilateral, tip up, ``2 * radii`` wide; inside the largest distance to the three edges."""
    height = np.float32(math.sqrt(3) / 2) * radii[:, None, None]
    slopes = np.float32(math.sqrt(3) / 2) * np.abs(x) - np.float32(0.5) * (y + height)
    return np.maximum(slopes, y - height)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Drawn training pictures (N, S, S, 3) and the places of their scenes in ``all_scenes()``."""

    pictures: Pixels
    scenes: NDArray[np.int32]


def draw_blocks(
    count: int, seed: int, size: int = SIZE, processes: int | None = None
) -> Iterator[Pool]:
    """Draw ``count`` training pictures in blocks, in several processes.

    Block ``b`` depends on ``seed`` and ``b`` alone. Yields blocks of at most 1,024, in order.
    """
    sizes = [min(_BLOCK, count - start) for start in range(0, count, _BLOCK)]
    tasks = [(seed, number, block, size) for number, block in enumerate(sizes)]
    workers = min(len(tasks), processes or os.cpu_count() or 1)
    if workers <= 1:
        yield from map(_draw_block, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield from executor.map(_draw_block, tasks)


def _draw_block(task: tuple[int, int, int, int]) -> Pool:
    seed, number, count, size = task
    generator = np.random.Generator(np.random.PCG64([seed, number]))
    places = sample_training(generator, count).astype(np.int32)
    scenes = [all_scenes()[place] for place in places]
    return Pool(pictures=draw(scenes, generator, size), scenes=places)
