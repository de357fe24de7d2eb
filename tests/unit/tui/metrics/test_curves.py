"""Rows become curves: one truth for a step, whatever attempts there were."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tui.metrics.conftest import row
from tui.metrics.curves import MOST_POINTS, Curves, Resume, Series


def values(curves: Curves, name: str = "train_loss") -> list[tuple[float, float]]:
    series = curves.series.get(name, Series())
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_rows_add_up_in_any_portions() -> None:
    rows = [row(n, n, "train_loss", 1 / n) for n in range(1, 20)]
    whole = Curves().extended(rows, {})
    parts = Curves()
    for start in range(0, len(rows), 4):
        parts = parts.extended(rows[start : start + 4], {})
    assert values(whole) == values(parts)
    assert parts.last_id == 19
    assert parts.extent == (1, 19)


def test_an_attempt_that_goes_on_replaces_what_came_after() -> None:
    first = [row(n, 10 * n, "train_loss", 1.0) for n in range(1, 6)]
    late = [row(6, 45, "val_loss", 3.0), row(7, 20, "val_loss", 2.0)]
    second = [row(8, 40, "train_loss", 0.5, attempt=2)]
    curves = Curves().extended([*first, *late, *second], {2: 30})
    assert values(curves) == [(10, 1.0), (20, 1.0), (30, 1.0), (40, 0.5)]
    assert values(curves, "val_loss") == [(20, 2.0)]
    assert curves.resumes == (Resume(attempt=2, step=30),)


def test_an_attempt_that_begins_anew_replaces_everything() -> None:
    first = [row(1, 10, "train_loss", 1.0), row(2, 10, "gone", 1.0)]
    curves = Curves().extended(first, {}).extended([row(3, 20, "train_loss", 2, 2)], {2: None})
    assert values(curves) == [(20, 2.0)]
    assert "gone" not in curves.series
    assert curves.resumes == ()


def test_where_the_resumed_step_is_not_known_the_first_report_tells() -> None:
    rows = [row(n, n, "train_loss", 1.0) for n in range(1, 9)]
    curves = Curves().extended([*rows, row(9, 5, "train_loss", 2.0, attempt=2)], {})
    assert values(curves)[-2:] == [(4, 1.0), (5, 2.0)]
    assert curves.resumes == (Resume(attempt=2, step=4),)


def test_a_later_resume_before_an_earlier_one_replaces_its_mark() -> None:
    rows = [row(n, n, "x", 1.0) for n in range(1, 9)]
    curves = Curves().extended([*rows, row(9, 8, "x", 1, 2), row(10, 4, "x", 1, 3)], {2: 7, 3: 3})
    assert curves.resumes == (Resume(attempt=3, step=3),)


def test_rows_of_a_stale_attempt_do_not_count() -> None:
    curves = Curves().extended([row(1, 5, "x", 1, 2), row(2, 9, "x", 7, 1)], {})
    assert values(curves, "x") == [(5, 1.0)]
    assert curves.last_id == 2


@given(st.lists(st.integers(0, 50), max_size=40))
def test_steps_never_fall(steps: list[int]) -> None:
    curves = Curves().extended([row(n, step, "x", n) for n, step in enumerate(steps, 1)], {})
    found = curves.series.get("x", Series()).steps
    assert np.all(np.diff(found) >= 0)
    assert len(found) == len(steps)


def test_a_series_is_bounded_and_keeps_its_best() -> None:
    series, total = Series(), 200_000
    for start in range(0, total, 20_000):
        steps = np.arange(start, start + 20_000, dtype=float)
        values = 2 + np.sin(steps)
        values[steps == 77_777] = -5.0
        series = series.extended(steps.tolist(), values.tolist())
        assert len(series) <= MOST_POINTS
    assert series.lowest is not None
    assert (series.lowest.step, series.lowest.value) == (77_777, -5.0)
    assert series.last.step == total - 1


def test_what_is_not_a_number_is_kept_and_not_the_best() -> None:
    missing: list[object] = [{**row(1, 1, "x", 0.0), "value": None}]
    curves = Curves().extended([*missing, row(2, 2, "x", 3.0)], {})  # type: ignore[list-item]
    assert np.isnan(curves.series["x"].values[0])
    lowest = curves.series["x"].lowest
    assert lowest is not None
    assert lowest.value == 3.0
    assert Curves().extended([row(1, 1, "x", float("nan"))], {}).series["x"].lowest is None
