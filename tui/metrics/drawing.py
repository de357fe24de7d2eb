"""What one plot shows, before it meets a widget: lines, limits, ticks, marks and a legend.

The rule this module protects: two lines of one plot differ in more than their colour, and the
numbers in the legend are the measured ones, whatever the lines have gone through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """How a line is drawn; ``sample`` or ``sign`` stands for it in a legend."""

    SOLID = "solid"
    MARKED = "marked"
    DASHED = "dashed"

    @property
    def sample(self) -> str:
        """Three characters of the line."""
        return {"solid": "⠒⠒⠒", "marked": "⠒●⠒", "dashed": "⠒ ⠒"}[self.value]

    @property
    def sign(self) -> str:
        """One character for it, where there is little room."""
        return {"solid": "⠒", "marked": "●", "dashed": "╌"}[self.value]


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
    """A line's place in the legend; None stands for the stroke of a line that is alone.

    ``best`` is the lowest value and its step.
    """

    stroke: Stroke | None
    role: int
    text: str
    best: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """One plot; ``marks`` are the steps attempts went on from, ``note`` says what is missing."""

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
    left, right = _window(pair, options)
    log = options.log and chart.loss
    smooth = options.smooth and chart.smooth
    woven = strands(chart, pair)
    whole = [_line(strand, smooth=smooth, log=log) for strand in woven]
    lines = [_thinned(line, left, right, size.columns) for line in whole]
    low, high = _limits(lines, left, right)
    return Drawing(
        title=chart.title,
        legend=tuple(_entry(chart, strand) for strand in sorted(woven, key=_role)),
        lines=tuple(line for line in lines if len(line.x)),
        x_limits=(left, right),
        y_limits=(low, high),
        x_ticks=_step_ticks(left, right, size.columns),
        y_ticks=(log_ticks if log else linear_ticks)(low, high, max(3, size.rows // 2)),
        marks=[resume.step for resume in pair.this.resumes if left < resume.step < right],
        note=_note(whole, log=log),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Strand:
    """A series and its place in a plot; ``job`` names whose it is where two are compared."""

    name: str
    series: Series
    stroke: Stroke
    role: int
    job: int | None = None


def strands(chart: Chart, pair: Pair) -> list[Strand]:
    """Return the plot's series; of two jobs the other's first, so that this one's lies on top."""
    if pair.other is not None:
        return [
            Strand(name=name, series=series, stroke=stroke, role=role, job=number)
            for curves, stroke, role, number in (
                (pair.other, Stroke.DASHED, 1, pair.other_number),
                (pair.this, Stroke.SOLID, 0, pair.number),
            )
            for name, series in curves.series.items()
            if name in chart.names
        ]
    return [
        Strand(name=name, series=pair.this.series[name], stroke=stroke, role=role)
        for role, (name, stroke) in enumerate(zip(chart.names, Stroke, strict=False))
    ]


def _role(strand: Strand) -> int:
    return strand.role


def _entry(chart: Chart, strand: Strand) -> Entry:
    """Return the legend's words: whose line it is, its last value, the lowest validation loss."""
    label = chart.label(strand.name) if strand.job is None else f"#{strand.job}"
    last = shown(strand.name, strand.series.last.value)
    lowest = strand.series.lowest if strand.name == "val_loss" else None
    return Entry(
        stroke=strand.stroke if label else None,
        role=strand.role,
        text=f"{label} {last}".strip(),
        best=None if lowest is None else (shown(strand.name, lowest.value), count(lowest.step)),
    )


def _window(pair: Pair, options: Options) -> tuple[float, float]:
    """Return the steps to show; around a single one there is room on both sides."""
    left, right = options.window(pair.extent or (0.0, 1.0))
    return (left, right) if left < right else (left - 1, right + 1)


def _line(strand: Strand, *, smooth: bool, log: bool) -> Line:
    """Return a series in the plot's coordinates, without the points that have no place in it."""
    values = strand.series.values / divisor(strand.name)
    values = smoothed(values) if smooth else values
    placed = np.isfinite(values) & (values > 0) if log else np.isfinite(values)
    y = values[placed]
    return Line(
        x=strand.series.steps[placed],
        y=np.log10(y) if log else y,
        stroke=strand.stroke,
        role=strand.role,
    )


def _thinned(line: Line, left: float, right: float, columns: int) -> Line:
    kept = thin_to_columns(line.x, line.y, left=left, right=right, columns=_ACROSS * columns)
    return replace(line, x=line.x[kept], y=line.y[kept])


def _limits(lines: Sequence[Line], left: float, right: float) -> tuple[float, float]:
    """Return the lowest and the highest place of what is shown, with a little room."""
    inside = [line.y[(line.x >= left) & (line.x <= right)] for line in lines]
    shown_values = np.concatenate(inside) if inside else np.empty(0)
    if not len(shown_values):
        return 0.0, 1.0
    low, high = float(shown_values.min()), float(shown_values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = 0.1 * abs(low) or 1.0
        return low - room, high + room
    room = _MARGIN * (high - low)
    return low - room, high + room


def _step_ticks(left: float, right: float, columns: int) -> list[Tick]:
    """Return the ticks of the steps: whole numbers, about one in ten columns."""
    ticks = linear_ticks(left, right, max(2, columns // 10))
    return [Tick(at=tick.at, label=count(tick.at)) for tick in ticks if tick.at.is_integer()]


def _note(lines: Sequence[Line], *, log: bool) -> str | None:
    if any(len(line.x) for line in lines):
        return None
    return "no value above 0 to show on a log scale" if log else "no finite value to show"


def dashes(line: Line, left: float, right: float, columns: int) -> list[tuple[Floats, Floats]]:
    """Return a line in pieces: three columns long, with gaps of two."""
    width = (right - left) / max(1, columns)
    starts = left + width * np.arange(0, columns, _DASH + _GAP)
    pieces = [_piece(line, start, start + width * _DASH) for start in starts]
    return [piece for piece in pieces if len(piece[0]) > 1]


def _piece(line: Line, start: float, end: float) -> tuple[Floats, Floats]:
    """Return the line between two steps, its ends interpolated."""
    start, end = max(start, float(line.x[0])), min(end, float(line.x[-1]))
    if start >= end:
        return np.empty(0), np.empty(0)
    inside = (line.x > start) & (line.x < end)
    x = np.concatenate(([start], line.x[inside], [end]))
    ends = np.interp([start, end], line.x, line.y)
    return x, np.concatenate((ends[:1], line.y[inside], ends[1:]))


def markers(line: Line, left: float, right: float, columns: int) -> tuple[Floats, Floats]:
    """Return the points that get a marker: those shown, and of many a regular choice."""
    inside = np.flatnonzero((line.x >= left) & (line.x <= right))
    every = max(1, math.ceil(len(inside) * _MARKER_EVERY / max(1, columns)))
    chosen = inside[::-1][::every][::-1]
    last = right - (right - left) / max(1, columns) / 2  # the frame is drawn over what lies right
    return np.minimum(line.x[chosen], last), line.y[chosen]
