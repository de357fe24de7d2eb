"""Decoding and encoding large pictures in overlapping tiles, in the memory of one tile.

The rule this module protects: no seam. Where tiles overlap their values are mixed with weights that
rise from the tile's edge, and the weights of all tiles add up to one everywhere. Each tile is a
safe point.

The normalisation inside a VAE sees one tile at a time, so tiles may differ a little in colour from
what the whole picture would have given; the wide overlap hides it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from workers.events import SafePoint

# Latents on a tile's side, and how many of them neighbours share. SDXL's own size is one tile.
TILE, OVERLAP = 128, 32

Network = Callable[[mx.array], mx.array]
Tiles = Generator[SafePoint, None, mx.array]


def tiled(network: Network, x: mx.array, scale: float, *, tile: int, overlap: int) -> Tiles:
    """Apply ``network`` to (batch, y, x, channels) tile by tile; return the whole.

    It yields after each tile, when that has been evaluated and nothing of the next has begun.

    ``scale``: output pixels to one input pixel, above or below one. ``tile`` and ``overlap`` count
    input pixels. Tiles begin where an output pixel does.
    """
    _, height, width, _ = x.shape
    step = max(1, round(1 / scale))
    rows, columns = (starts(side, tile, overlap, step) for side in (height, width))
    total: mx.array | None = None
    for top in rows:
        for left in columns:
            part = network(x[:, top : top + tile, left : left + tile])
            shares = _shares(part, rows, top, columns, left, scale)
            place = [round(side * scale) for side in (top, left, height, width)]
            total = _added(total, part * shares, place)
            mx.eval(total)
            yield SafePoint()
    if total is None:
        raise ValueError("a picture without pixels has no tiles")
    return total


def starts(length: int, tile: int, overlap: int, step: int = 1) -> list[int]:
    """Return where tiles begin so that they cover ``length``, overlapping at least so far.

    All are multiples of ``step``, as the three lengths are.
    """
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    room = (length - tile) // step
    return [step * round(index * room / (count - 1)) for index in range(count)]


def _shares(
    part: mx.array,
    rows: Sequence[int],
    top: int,
    columns: Sequence[int],
    left: int,
    scale: float,
) -> mx.array:
    """Return the weights of a tile's pixels, (1, y, x, 1)."""
    _, height, width, _ = part.shape
    vertical = _ramp(height, [round(start * scale) for start in rows], round(top * scale))
    horizontal = _ramp(width, [round(start * scale) for start in columns], round(left * scale))
    return mx.array(vertical[None, :, None, None] * horizontal[None, None, :, None])


def _ramp(length: int, origins: Sequence[int], start: int) -> NDArray[np.float32]:
    """Return one side's weights: each tile's triangle, divided by the sum of all triangles."""
    triangle = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float64)
    everyone = np.zeros(max(origins) + length)
    for origin in origins:
        everyone[origin : origin + length] += triangle
    shares = triangle / everyone[start : start + length]
    return shares.astype(np.float32)


def _added(total: mx.array | None, part: mx.array, place: Sequence[int]) -> mx.array:
    """Add a weighted tile to the picture so far; ``place``: top, left, height, width."""
    top, left, height, width = place
    if total is None:
        total = mx.zeros((part.shape[0], height, width, part.shape[3]), dtype=part.dtype)
    bottom, right = top + part.shape[1], left + part.shape[2]
    return total.at[:, top:bottom, left:right].add(part)
