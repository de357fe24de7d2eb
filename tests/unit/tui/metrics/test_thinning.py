"""Fewer points that look the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tui.metrics.thinning import Floats, thin_to_columns, thin_to_count

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300).map(np.array)


@given(VALUES, st.integers(1, 40))
def test_each_column_keeps_its_lowest_and_highest(values: Floats, columns: int) -> None:
    steps = np.arange(len(values), dtype=float)
    right = float(len(values))
    kept = thin_to_columns(steps, values, left=0.0, right=right, columns=columns)
    assert len(kept) <= max(2 * columns + 4, 0) or len(values) <= 2 * columns
    assert np.all(np.diff(kept) > 0)
    column = np.floor(steps / right * columns)
    for place in range(columns):
        inside, left = values[column == place], values[kept][column[kept] == place]
        if len(inside):
            assert left.min() == inside.min()
            assert left.max() == inside.max()


@given(VALUES, st.integers(4, 60))
def test_a_count_is_kept_and_so_are_the_ends(values: Floats, most: int) -> None:
    kept = thin_to_count(values, most)
    assert len(kept) <= most
    assert kept[0] == 0
    assert kept[-1] == len(values) - 1
    assert values[kept].min() == values.min()
    assert values[kept].max() == values.max()


def test_a_window_has_a_neighbour_on_each_side() -> None:
    steps = np.arange(10, dtype=float)
    assert list(thin_to_columns(steps, steps, left=4, right=6, columns=50)) == [3, 4, 5, 6, 7]


def test_nothing_and_nan_are_no_trouble() -> None:
    empty, nans = np.empty(0), np.full(50, np.nan)
    assert not len(thin_to_columns(empty, empty, left=0, right=1, columns=3))
    kept = thin_to_columns(np.arange(50.0), nans, left=0, right=49, columns=3)
    assert list(kept) == [0, 49]


def test_a_million_points_become_few() -> None:
    values = np.sin(np.arange(1_000_000) / 1000)
    values[123_456] = 9.0
    kept = thin_to_columns(
        np.arange(1_000_000, dtype=float), values, left=0, right=999_999, columns=180
    )
    assert len(kept) <= 2 * 180 + 4
    assert 123_456 in kept
