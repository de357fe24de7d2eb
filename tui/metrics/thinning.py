"""Fewer points that look the same: of each group of neighbours the lowest and the highest stay.

The rule this module protects: an outlier never disappears by drawing. Whatever is left out lies
between two values of its group that stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def thin_to_columns(
    steps: Floats, values: Floats, *, left: float, right: float, columns: int
) -> Indices:
    """Return the indices to draw from ``left`` to ``right`` in that many columns, ascending.

    At most two for each column, and one on each side, so that a line that leaves the window does.
    ``steps`` must not fall.
    """
    first = max(0, int(np.searchsorted(steps, left, "left")) - 1)
    last = min(len(steps), int(np.searchsorted(steps, right, "right")) + 1)
    inside = np.arange(first, last)
    if len(inside) <= 2 * columns or right <= left:
        return inside
    places = np.floor((steps[first:last] - left) / (right - left) * columns)
    starts = np.flatnonzero(np.diff(np.clip(places, -1, columns))) + 1
    return inside[extremes(values[first:last], np.concatenate(([0], starts)))]


def thin_to_count(values: Floats, most: int) -> Indices:
    """Return at most ``most`` indices, spread evenly; the first and the last are among them."""
    if len(values) <= most:
        return np.arange(len(values))
    groups = max(1, (most - 2) // 2)
    starts = np.arange(groups) * len(values) // groups
    return extremes(values, starts)


def extremes(values: Floats, starts: Indices) -> Indices:
    """Return the indices of each group's lowest and highest value, and the first and the last.

    ``starts`` are the groups' first indices, ascending from 0. A NaN is neither.
    """
    counts = np.diff(np.append(starts, len(values)))
    group = np.repeat(np.arange(len(starts)), counts)
    lows = np.fmin.reduceat(values, starts)[group] == values
    highs = np.fmax.reduceat(values, starts)[group] == values
    ends = np.array([0, len(values) - 1])
    return np.unique(np.concatenate((_firsts(lows, group), _firsts(highs, group), ends)))


def _firsts(chosen: NDArray[np.bool_], group: Indices) -> Indices:
    """Return the first chosen index of each group."""
    found = np.flatnonzero(chosen)
    _, first = np.unique(group[found], return_index=True)
    return found[first]
