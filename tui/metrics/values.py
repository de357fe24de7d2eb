"""The table that stands for the plots where there is no room, or nothing to draw a line through.

The rule this module protects: every measured name has its row, also one that was measured once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tui.metrics.charts import Chart, charts_of, shown, title
from tui.metrics.curves import Curves, Series
from tui.metrics.drawing import Pair
from tui.metrics.figures import count
from tui.metrics.thinning import Floats

_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One name's numbers as text; ``other`` is the compared job's last value."""

    title: str
    last: str
    step: str
    lowest: str
    other: str
    course: str


def rows(pair: Pair, width: int) -> list[Row]:
    """Return a row for each name; ``width`` is the length of the small curve in it."""
    charts = charts_of(pair.names)
    return [_row(name, pair, width) for name in _ordered(charts)]


def _ordered(charts: Iterable[Chart]) -> list[str]:
    return [name for chart in charts for name in chart.names]


def _row(name: str, pair: Pair, width: int) -> Row:
    series = pair.this.series.get(name, Series())
    other = (pair.other or Curves()).series.get(name, Series())
    lowest = series.lowest if len(series) > 1 and name.endswith("_loss") else None
    return Row(
        title=title(name),
        last=_last(name, series),
        step=count(series.last.step) if len(series) else "",
        lowest="" if lowest is None else f"{shown(name, lowest.value)} at {count(lowest.step)}",
        other=_last(name, other),
        course=sparkline(series.values, width) if len(series) > 1 else "",
    )


def _last(name: str, series: Series) -> str:
    return shown(name, series.last.value) if len(series) else "-"


def sparkline(values: Floats, width: int) -> str:
    """Draw values with characters of eight heights, each the mean of its share of them."""
    finite = values[np.isfinite(values)]
    if not len(finite) or width < 1:
        return ""
    parts = np.array_split(finite, min(width, len(finite)))
    means = np.array([part.mean() for part in parts])
    low, span = float(means.min()), float(np.ptp(means))
    if span == 0:
        return _BLOCKS[3] * len(means)
    places = ((means - low) / span * (len(_BLOCKS) - 1)).round().astype(int)
    return "".join(_BLOCKS[place] for place in places)
