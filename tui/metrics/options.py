"""What a person has chosen about the plots.

The rule this module protects: a choice belongs to the kind of plot and not to the job, so it stays
when another job is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tui.metrics.charts import Chart

# The part of the steps that is shown when only the end is looked at.
TAIL = 0.1
# What each further value leaves of a smoothed average: about ten values count.
KEEP = 0.9


@dataclass(frozen=True, kw_only=True)
class Options:
    """How plots are drawn, which are shown, and whether a table takes their place."""

    log: bool = False
    smooth: bool = False
    tail: bool = False
    table: bool = False
    chosen: Mapping[str, bool] = field(default_factory=dict)

    def shows(self, chart: Chart) -> bool:
        """Return whether the plot is shown: as chosen, else unless it is an extra one."""
        return self.chosen.get(chart.key, not chart.extra)

    def toggled(self, charts: Sequence[Chart], number: int) -> Options:
        """Return the options with the plot of that number, from 1, shown or hidden."""
        if not 1 <= number <= len(charts):
            return self
        chart = charts[number - 1]
        return replace(self, chosen={**self.chosen, chart.key: not self.shows(chart)})

    def switched(self, name: str) -> Options:
        """Return the options with the one of that name turned on or off."""
        return replace(self, **{name: not getattr(self, name)})  # type: ignore[arg-type]

    def window(self, extent: tuple[float, float]) -> tuple[float, float]:
        """Return the steps that are shown of those from ``extent[0]`` to ``extent[1]``."""
        first, last = extent
        return (last - TAIL * (last - first), last) if self.tail else extent

    def words(self) -> list[str]:
        """Say what is not as usual."""
        said = {
            "log scale": self.log,
            f"smoothed (moving average, {KEEP:g})": self.smooth,
            f"last {TAIL:.0%}": self.tail,
        }
        return [word for word, holds in said.items() if holds]
