"""What one plot shows, before it meets a widget: lines, limits, ticks, marks and a legend.

The rule this module protects: two lines of one plot differ in more than their colour, and the
numbers in the legend are the measured ones, whatever the lines have gone through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tui.metrics.charts import Chart, divisor, shown
from tui.metrics.curves import Curves, Series
from tui.metrics.figures import Tick, count, linear_ticks, log_ticks
from tui.metrics.options import Options
from tui.metrics.smoothing import smoothed
from tui.metrics.thinning import Floats, thin_to_columns

# Dots of a braille character, side by side and one above the other.
_ACROSS = 2
# Columns of a dash and of the gap after it.
_DASH, _GAP = 3, 2
_MARKER_EVERY = 4
_MARGIN = 0.05


class Stroke(StrEnum):
    """How a line is drawn; ``sample`` is what stands for it in a legend."""

    SOLID = "solid"
    MARKED = "marked"
    DASHED = "dashed"

    @property
    def sample(self) -> str:
        """Three characters of the line."""
        return {"solid": "⠒⠒⠒", "marked": "⠒●⠒", "dashed": "⠒ ⠒"}[self.value]


@dataclass(frozen=True, kw_only=True)
class Size:
    """Room for the lines, in characters."""

    columns: int
    rows: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """Points in the plot's coordinates; ``role`` counts the plot's colours from 0."""

    x: Floats
    y: Floats
    stroke: Stroke
    role: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line's place in the legend."""

    sample: str
    role: int
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """One plot; ``marks`` are the steps at which attempts went on, ``note`` says what is missing."""

    title: str
    legend: tuple[Entry, ...]
    lines: tuple[Line, ...] = ()
    x_limits: tuple[float, float] = (0.0, 1.0)
    y_limits: tuple[float, float] = (0.0, 1.0)
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()
    marks: Sequence[float] = ()
    note: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """The curves of a job, and those of the job that it is compared with."""

    this: Curves
    other: Curves | None = None
    number: int = 0
    other_number: int = 0

    @property
    def names(self) -> list[str]:
        """The names that either has measured."""
        return list(dict.fromkeys([*self.this.series, *(self.other or Curves()).series]))

    @property
    def extent(self) -> tuple[float, float] | None:
        """The first and the last step of both."""
        extents = [curves.extent for curves in (self.this, self.other) if curves is not None]
        known = [extent for extent in extents if extent is not None]
        if not known:
            return None
        return min(first for first, _ in known), max(last for _, last in known)


def draw(chart: Chart, pair: Pair, options: Options, size: Size) -> Drawing:
    """Return what the plot shows in a place of that size."""
    legend = tuple(_legend(chart, pair))
    first, last = pair.extent or (0.0, 1.0)
    left, right = options.window((first, last))
    left, right = (left, right) if left < right else (left - 1, right + 1)
    log = options.log and chart.loss
    strokes = list(_strokes(chart, pair))
    lines = [
        _line(series, name, stroke, role, smooth=options.smooth and chart.smooth, log=log)
        for name, series, stroke, role in strokes
    ]
    thin = [_thinned(line, left, right, size.columns) for line in lines]
    low, high = _limits(thin, left, right)
    return Drawing(
        title=chart.title,
        legend=legend,
        lines=tuple(line for line in thin if len(line.x)),
        x_limits=(left, right),
        y_limits=(low, high),
        x_ticks=_step_ticks(left, right, size.columns),
        y_ticks=_value_ticks(low, high, size.rows, log=log),
        marks=[resume.step for resume in pair.this.resumes if left < resume.step < right],
        note=_note(lines, log=log),
    )


def _strokes(chart: Chart, pair: Pair) -> Iterator[tuple[str, Series, Stroke, int]]:
    """Yield the plot's series with how they are drawn, the most important last and so on top."""
    if pair.other is not None:
        (name,) = chart.names[:1]
        for curves, stroke, role in ((pair.other, Stroke.DASHED, 1), (pair.this, Stroke.SOLID, 0)):
            if name in curves.series:
                yield name, curves.series[name], stroke, role
        return
    styles = list(zip(chart.names, Stroke, range(len(chart.names)), strict=False))
    for name, stroke, role in reversed(styles[1:] if chart.loss else styles):
        yield name, pair.this.series[name], stroke, role
