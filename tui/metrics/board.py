"""What the metrics tab shows once there is something: plots or a table, and the differences.

The rule this module protects: widgets stay while what they show changes. A plot is made when it
is first wanted and removed when it is not, and nothing is rebuilt by new values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.table import Table
from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.widgets import Static

from tui.metrics.arrangement import LEAST_COLUMNS, LEAST_COMPARED, Arrangement, arrange
from tui.metrics.charts import Chart, charts_of
from tui.metrics.drawing import Pair, draw
from tui.metrics.notes import NOTHING_CHOSEN
from tui.metrics.options import Options
from tui.metrics.plot import Plot
from tui.metrics.specs import Difference
from tui.metrics.values import rows

# What the table's other columns take, at least, before the small curves get the rest.
_TABLE_TEXT = 58
# The differences' headers, and the line that is left empty above.
_TABLE_LINES = 2


class Board(VerticalScroll, can_focus=False):
    """Plots, the table of values, and how the specs of two jobs differ."""

    DEFAULT_CSS = """
    Board {
        scrollbar-size-vertical: 1;
        .plots { grid-gutter: 0 1; }
        .values, .differences { height: auto; padding: 0 1; }
        .differences { margin-top: 1; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._pair: Pair | None = None
        self._options = Options()
        self._differences: Sequence[Difference] | None = None
        self._plots: dict[str, Plot] = {}
        self._small = False
        self._values = Static(classes="values")
        self._grid = Grid(classes="plots")
        self._table = Static(classes="differences")

    def compose(self) -> ComposeResult:
        """Put the table where the plots are; only one of them is shown."""
        yield self._values
        yield self._grid
        yield self._table

    @property
    def charts(self) -> list[Chart]:
        """The plots that there are, in the order of their numbers; all of them can be drawn."""
        return [] if self._pair is None else drawable(self._pair)

    def show(
        self,
        pair: Pair,
        options: Options,
        *,
        differences: Sequence[Difference] | None = None,
        small: bool = False,
    ) -> None:
        """Show these curves; where the place is ``small``, as a table.

        ``differences`` are those of the specs while two jobs are compared.
        """
        self._pair, self._options, self._differences = pair, options, differences
        self._small = small
        self._update()

    @on(events.Resize)
    def _resized(self) -> None:
        self._update()

    def _update(self) -> None:
        if self._pair is None or not self.size or not self._grid.is_attached:
            return
        wanted = [chart for chart in self.charts if self._options.shows(chart)]
        self._show_values(self._pair, nothing=not wanted)
        self._show_plots(self._pair, [] if self.tabled else wanted)
        self._show_differences(self._pair)

    @property
    def tabled(self) -> bool:
        """Whether a table stands for the plots: it was chosen, or nothing else is possible."""
        return self._options.table or self._small or not self.charts

    def _show_values(self, pair: Pair, *, nothing: bool) -> None:
        self._values.display = self.tabled or nothing
        if self.tabled:
            self._values.update(value_table(pair, self.size.width - 2))
        elif nothing:
            self._values.update(NOTHING_CHOSEN)

    def _show_plots(self, pair: Pair, charts: Sequence[Chart]) -> None:
        self._grid.display = bool(charts)
        self._keep({chart.key for chart in charts})
        self._add(charts)
        for chart in charts:
            self._plots[chart.key].show(partial(draw, chart, pair, self._options))
        least = LEAST_COLUMNS if pair.other is None else LEAST_COMPARED
        place = arrange(self.size.width, self._height_for_plots(), len(charts), least)
        _arrange(self._grid, [self._plots[chart.key] for chart in charts], place)

    def _height_for_plots(self) -> int:
        """Return the height that the table of differences leaves; it gets a third at most."""
        height = self.size.height
        if self._differences is None:
            return height
        return height - min(len(self._differences) + _TABLE_LINES, height // 3)

    def _keep(self, keys: set[str]) -> None:
        """Remove the other plots; they take no place from now on."""
        for key in self._plots.keys() - keys:
            plot = self._plots.pop(key)
            plot.display = False
            plot.remove()

    def _add(self, charts: Sequence[Chart]) -> None:
        """Make the plots that are missing, each in its place."""
        after: Plot | None = None
        for chart in reversed(charts):
            if chart.key not in self._plots:
                self._plots[chart.key] = Plot(chart.key)
                self._grid.mount(self._plots[chart.key], before=after)
            after = self._plots[chart.key]

    def _show_differences(self, pair: Pair) -> None:
        self._table.display = self._differences is not None
        if self._differences is not None:
            self._table.update(difference_table(self._differences, pair))


def drawable(pair: Pair) -> list[Chart]:
    """Return the plots through whose points a line can be drawn."""
    compared = pair.other is not None
    measured = [curves.series for curves in (pair.this, pair.other) if curves is not None]
    return [
        chart
        for chart in charts_of(pair.names, apart=compared)
        if any(len(series.get(name, ())) > 1 for series in measured for name in chart.names)
    ]


def _arrange(grid: Grid, plots: Sequence[Plot], place: Arrangement) -> None:
    grid.styles.grid_size_columns = place.columns
    grid.styles.height = sum(place.rows)
    grid.styles.grid_rows = " ".join(map(str, place.rows))
    for plot, span in zip(plots, place.spans, strict=True):
        plot.styles.column_span = span


def value_table(pair: Pair, width: int) -> Table:
    """Return the last value of everything as a table of that width."""
    table = Table(box=None, pad_edge=False, width=max(20, width), header_style="bold")
    compared = pair.other is not None
    table.add_column("", no_wrap=True, ratio=2)
    table.add_column(f"#{pair.number}" if compared else "last", justify="right", no_wrap=True)
    if compared:
        table.add_column(f"#{pair.other_number}", justify="right", no_wrap=True)
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("lowest", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows(pair, max(0, min(40, width - _TABLE_TEXT))):
        other = [row.other] if compared else []
        table.add_row(row.title, row.last, *other, row.step, row.lowest, row.course)
    return table


def difference_table(differences: Sequence[Difference], pair: Pair) -> Table | Text:
    """Return what differs in the specs of the two jobs."""
    if not differences:
        return Text(f"The specs of jobs {pair.number} and {pair.other_number} are the same.")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("spec", f"#{pair.number}", f"#{pair.other_number}"):
        table.add_column(header, overflow="fold")
    for difference in differences:
        table.add_row(Text(difference.field), Text(difference.this), Text(difference.other))
    return table
