"""The measured numbers of one job as curves: a value for each name and step.

The rule this module protects: a step has one truth. An attempt that goes on from step s replaces
what earlier attempts measured after s, and one that begins anew replaces all of it. What is kept
of a series is bounded, its lowest and highest values stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from tui.metrics.thinning import Floats, thin_to_count

if TYPE_CHECKING:
    from daemon.client.answers import Metric

# Points of a series, beyond which neighbours are merged to half as many; no terminal shows more.
MOST_POINTS = 16_384
_MOST_RESUMES = 100

# The step that each attempt went on from; None for one that began anew.
Resumed = Mapping[int, int | None]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured value."""

    step: float
    value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """The values of one name; steps do not fall. The arrays are never written to."""

    steps: Floats = field(default_factory=lambda: np.empty(0))
    values: Floats = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> Point:
        """The latest value."""
        return self._point(-1)

    @property
    def lowest(self) -> Point | None:
        """The lowest value; None if nothing but NaN was measured."""
        if np.isnan(self.values).all():
            return None
        return self._point(int(np.nanargmin(self.values)))

    def _point(self, index: int) -> Point:
        return Point(step=float(self.steps[index]), value=float(self.values[index]))

    def until(self, step: float) -> Series:
        """Return what was measured up to ``step``."""
        count = int(np.searchsorted(self.steps, step, "right"))
        return Series(steps=self.steps[:count], values=self.values[:count])

    def extended(self, steps: Sequence[float], values: Sequence[float]) -> Series:
        """Return the series with more points, thinned if there are too many."""
        all_steps = np.concatenate((self.steps, np.asarray(steps, float)))
        all_values = np.concatenate((self.values, np.asarray(values, float)))
        if np.any(np.diff(all_steps) < 0):
            order = np.argsort(all_steps, kind="stable")
            all_steps, all_values = all_steps[order], all_values[order]
        if len(all_steps) > MOST_POINTS:
            kept = thin_to_count(all_values, MOST_POINTS // 2)
            all_steps, all_values = all_steps[kept], all_values[kept]
        return Series(steps=all_steps, values=all_values)


@dataclass(frozen=True, kw_only=True)
class Resume:
    """An attempt after the first, and the step it went on from."""

    attempt: int
    step: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """All that was measured so far; ``last_id`` is the latest row's."""

    last_id: int = 0
    attempt: int = 0
    series: Mapping[str, Series] = field(default_factory=dict)
    resumes: tuple[Resume, ...] = ()

    @property
    def extent(self) -> tuple[float, float] | None:
        """The first and the last step; None while there are none."""
        filled = [series.steps for series in self.series.values() if len(series)]
        if not filled:
            return None
        return float(min(steps[0] for steps in filled)), float(max(steps[-1] for steps in filled))

    def extended(self, rows: Sequence[Metric], resumed: Resumed) -> Curves:
        """Return the curves with further rows, which are in the order of their ids."""
        curves = self
        for attempt, group in groupby(rows, key=lambda row: row["attempt"]):
            curves = curves._with_attempt(attempt, list(group), resumed)
        return curves

    def _with_attempt(self, attempt: int, rows: Sequence[Metric], resumed: Resumed) -> Curves:
        seen = replace(self, last_id=rows[-1]["id"])
        if attempt < self.attempt:
            return seen
        if attempt > self.attempt > 0:
            first = min(row["step"] for row in rows)
            seen = seen._cut(attempt, resumed.get(attempt, first - 1), first)
        return replace(seen, attempt=attempt, series=_added(seen.series, rows))

    def _cut(self, attempt: int, step: int | None, first: int) -> Curves:
        """Return what stays when an attempt goes on from ``step`` and measures from ``first``."""
        if step is None:
            return replace(self, series={}, resumes=())
        last = min(step, first - 1)
        kept = {name: series.until(last) for name, series in self.series.items()}
        before = [resume for resume in self.resumes if resume.step < last]
        marks = (*before, Resume(attempt=attempt, step=last))[-_MOST_RESUMES:]
        return replace(
            self,
            series={name: series for name, series in kept.items() if len(series)},
            resumes=marks,
        )


def _added(series: Mapping[str, Series], rows: Sequence[Metric]) -> Mapping[str, Series]:
    """Return the series with the rows of one attempt."""
    steps: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}
    for row in rows:
        value: float | None = row["value"]
        steps.setdefault(row["name"], []).append(row["step"])
        values.setdefault(row["name"], []).append(float("nan") if value is None else value)
    new = {name: series.get(name, Series()).extended(steps[name], values[name]) for name in steps}
    return {**series, **new}
