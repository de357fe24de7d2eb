"""Smoothing, ticks and numbers as text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.metrics.figures import count, figure, linear_ticks, log_ticks
from tui.metrics.smoothing import smoothed
from tui.metrics.thinning import Floats


def test_the_average_begins_at_the_first_value() -> None:
    assert smoothed(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    assert smoothed(np.array([4.0, 0.0])) == pytest.approx([4.0, 0.9 * 4 / 1.9])


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60).map(np.array))
def test_the_average_stays_between_the_values(values: Floats) -> None:
    found = smoothed(values)
    slack = 1e-6 * (1 + np.abs(values).max())
    assert found.min() >= values.min() - slack
    assert found.max() <= values.max() + slack


def test_what_is_not_finite_does_not_count() -> None:
    found = smoothed(np.array([1.0, np.nan, 1.0, np.inf]))
    assert found[2] == 1.0
    assert np.isnan(found[1])
    assert np.isinf(found[3])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.23456, "1.235"),
        (812.46, "812.5"),
        (12345.6, "12346"),
        (1e-5, "1e-5"),
        (-2.5e7, "-2.5e7"),
        (float("nan"), "nan"),
    ],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(600, "600"), (12_000, "12k"), (1_500_000, "1.5M"), (0, "0")]
)
def test_steps(value: float, text: str) -> None:
    assert count(value) == text


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_no_more_ticks_than_room_and_none_outside(low: float, span: float, most: int) -> None:
    ticks = linear_ticks(low, low + span, most)
    assert len(ticks) <= most
    assert all(low - span / 1e3 <= tick.at <= low + span * 1.001 for tick in ticks)


@given(st.floats(-8, 8), st.floats(0.01, 9), st.integers(2, 12))
def test_log_ticks_say_the_number_itself(low: float, span: float, most: int) -> None:
    ticks = log_ticks(low, low + span, most)
    assert len(ticks) <= most
    for tick in ticks:
        if "k" not in tick.label:
            assert float(tick.label) == pytest.approx(10**tick.at, rel=0.06)


def test_labels() -> None:
    assert [tick.label for tick in linear_ticks(0.9, 3.1, 5)] == ["1.0", "1.5", "2.0", "2.5", "3.0"]
    assert [tick.label for tick in linear_ticks(0, 2e-5, 3)] == ["0", "1e-5", "2e-5"]
    assert [tick.label for tick in log_ticks(0, 3, 4)] == ["1", "10", "100", "1000"]
    assert linear_ticks(1, 1, 5) == []
