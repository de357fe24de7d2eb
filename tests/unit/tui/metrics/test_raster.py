"""Lines as braille characters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.metrics.raster import braille, clipped
from tui.metrics.thinning import Floats

PLACE = st.floats(-30, 30)
SEGMENTS = st.lists(st.tuples(PLACE, PLACE, PLACE, PLACE), max_size=8)


def picture(segments: list[tuple[float, float, float, float]], width: int, height: int) -> str:
    rows = [[" "] * width for _ in range(height)]
    for column, row, char in braille(np.array(segments, float).reshape(-1, 4), width, height):
        rows[row][column] = char
    return "\n".join("".join(row) for row in rows)


def test_lines() -> None:
    assert picture([(0, 0, 2.4, 0)], 3, 1) == "⠉⠉⠁"
    assert picture([(0, 0, 0, 1.9)], 1, 2) == "⡇\n⡇"
    assert picture([(0, 0, 1.5, 0.75)], 2, 1) == "⠑⢄"
    assert picture([], 2, 1) == "  "


def test_a_point_is_a_dot() -> None:
    assert picture([(0.5, 0.5, 0.5, 0.5)], 1, 1) == "⠠"


def test_lines_from_far_away_are_cut_and_not_walked() -> None:
    assert picture([(-1e12, 0.1, 1e12, 0.1)], 2, 1) == "⠉⠉"
    assert picture([(0, 5, 2, 5)], 2, 1) == "  "


@given(SEGMENTS)
def test_what_is_left_lies_inside_and_on_the_line(segments: list[Floats]) -> None:
    found = clipped(np.array(segments, float).reshape(-1, 4), 10.0, 5.0)
    assert np.all(found >= -1e-6)
    assert np.all(found <= np.array([10, 5, 10, 5]) + 1e-6)


@given(st.tuples(st.floats(0, 10), st.floats(0, 5), st.floats(0, 10), st.floats(0, 5)))
def test_what_is_inside_stays(segment: tuple[float, float, float, float]) -> None:
    (found,) = clipped(np.array([segment]), 10.0, 5.0)
    assert found == pytest.approx(segment)
