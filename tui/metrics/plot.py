"""One plot on the screen: a title with its legend, and curves below.

The rule this module protects: a plot is drawn from a function of its size. So it is right again
after every resize and change of theme, and costs nothing while it has no size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import numpy as np
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Grid, Vertical
from textual.content import Content
from textual.strip import Strip
from textual.widgets import Static
from textual_hires_canvas import Canvas
from textual_plot import HiResMode, PlotWidget
from textual_plot.axis_formatter import NumericAxisFormatter
from textual_plot.plot_widget import Legend

from tui.metrics.drawing import Drawing, Line, Size, Stroke, dashes, markers
from tui.metrics.figures import Tick
from tui.metrics.raster import braille

Draw = Callable[[Size], Drawing]
Segment = tuple[float | np.floating, float | np.floating, float | np.floating, float | np.floating]

# Columns left of the curves and rows below, for the numbers; the frame takes one on each side.
_LEFT = 8
_BELOW = 1
_FRAME = 2
_ROLES = ("curves--first", "curves--second", "curves--third")
_COLOURS = ("$text-primary", "$text-warning", "$text-success")
_MARKERS = ("●", "●", "◆")
_MARK = "┊"


class _Labels(NumericAxisFormatter):
    """Writes the labels that the drawing has for its ticks."""

    def __init__(self, ticks: Sequence[Tick]) -> None:
        self._labels = [tick.label for tick in ticks]

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        return self._labels[: len(ticks)]


class _Canvas(Canvas):
    """A canvas that draws braille lines fast, and is right without colours.

    Its empty rows have a style too, which Textual's filter for NO_COLOR asks for.
    """

    def draw_hires_lines(
        self,
        coordinates: Iterable[Segment],
        hires_mode: HiResMode | None = None,  # noqa: ARG002 - lines are drawn in braille alone
        style: str = "white",
    ) -> None:
        segments = np.array(list(coordinates), float).reshape(-1, 4)
        with self.batch_refresh():
            for column, row, char in braille(segments, self.size.width, self.size.height):
                self.set_pixel(column, row, char, style)

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        return strip if strip.cell_length else Strip.blank(self.size.width, self.rich_style)


class CurvePlot(PlotWidget, can_focus=False, inherit_bindings=False):
    """The curves of one plot, drawn in the theme's colours."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {*_ROLES, "curves--mark"}

    DEFAULT_CSS = """
    CurvePlot {
        height: 1fr;
        & > .plot--axis { color: $foreground 35%; }
        & > .plot--tick { color: $foreground 70%; text-style: none; }
        & > .curves--first { color: $text-primary; }
        & > .curves--second { color: $text-warning; }
        & > .curves--third { color: $text-success; }
        & > .curves--mark { color: $foreground 60%; }
    }
    """

    def __init__(self) -> None:
        super().__init__(allow_pan_and_zoom=False)
        self._draw: Draw | None = None
        self.drawing: Drawing | None = None

    def compose(self) -> ComposeResult:
        """Make what the base class makes, with canvases of our own."""
        with Grid():
            for name in ("margin-top", "margin-left", "plot", "margin-bottom"):
                yield _Canvas(1, 1, id=name)
        yield Legend(id="legend")

    @on(events.Mount)
    def _fit_margins(self, event: events.Mount) -> None:
        if not self._whole:
            event.prevent_default()  # the base class would look for parts that are gone
            return
        self.margin_top, self.margin_bottom, self.margin_left = 0, _BELOW, _LEFT

    def _update_margin_sizes(self) -> None:
        if self._whole:
            super()._update_margin_sizes()

    @property
    def _whole(self) -> bool:
        """Whether the parts are there; they are gone where the app ends while a plot is made."""
        return bool(self.query(Grid)) and bool(self.query(Legend))

    def show(self, draw: Draw) -> Drawing | None:
        """Draw with this function from now on; return what is drawn if there is room yet."""
        self._draw = draw
        return self._redraw()

    @on(events.Resize)
    def _resized(self) -> None:
        self.refresh(layout=True)
        self._redraw()

    def notify_style_update(self) -> None:
        """Draw again in the colours of another theme."""
        super().notify_style_update()
        if self.is_mounted:
            self._redraw()

    @on(events.MouseScrollDown)
    def _leave_scrolling_down(self, event: events.MouseScrollDown) -> None:
        event.prevent_default()  # the base class would stop it, and the tab could not scroll

    @on(events.MouseScrollUp)
    def _leave_scrolling_up(self, event: events.MouseScrollUp) -> None:
        event.prevent_default()

    def _style(self, name: str) -> str:
        return str(self.get_component_rich_style(name, partial=True))

    def _redraw(self) -> Drawing | None:
        room = Size(
            columns=self.size.width - _LEFT - _FRAME, rows=self.size.height - _BELOW - _FRAME
        )
        if self._draw is None or min(room.columns, room.rows) < 1 or not self._whole:
            return None
        self.drawing = drawing = self._draw(room)
        self.clear()
        self._set_axes(drawing)
        for step in drawing.marks:
            self._mark(step, drawing.y_limits, room.rows)
        for line in drawing.lines:
            self._add(line, drawing.x_limits, room.columns)
        return drawing

    def _set_axes(self, drawing: Drawing) -> None:
        self.set_xlimits(*drawing.x_limits)
        self.set_ylimits(*drawing.y_limits)
        self.set_xticks([tick.at for tick in drawing.x_ticks])
        self.set_yticks([tick.at for tick in drawing.y_ticks])
        self.set_x_formatter(_Labels(drawing.x_ticks))
        self.set_y_formatter(_Labels(drawing.y_ticks))

    def _mark(self, step: float, limits: tuple[float, float], rows: int) -> None:
        """Draw a vertical line; ``add_v_line`` would hide the points that lie on it."""
        low, high = limits
        height = (high - low) / rows
        heights = [low + height * (row + 0.5) for row in range(rows)]
        self.scatter([step] * rows, heights, marker=_MARK, marker_style=self._style("curves--mark"))

    def _add(self, line: Line, window: tuple[float, float], columns: int) -> None:
        style, (left, right) = self._style(_ROLES[line.role]), window
        pieces = [(line.x, line.y)]
        if line.stroke is Stroke.DASHED:
            pieces = dashes(line, left, right, columns)
        for x, y in pieces:
            self.plot(x, y, line_style=style, hires_mode=HiResMode.BRAILLE)
        if line.stroke is Stroke.MARKED or len(line.x) == 1:
            x, y = markers(line, left, right, columns)
            self.scatter(x, y, marker=_MARKERS[line.role], marker_style=style)


class Plot(Vertical):
    """A title with the latest values, and the curves."""

    DEFAULT_CSS = """
    Plot {
        .title { height: 1; padding: 0 0 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self._draw: Draw | None = None
        self._drawn: Drawing | None = None
        self._title = Static(classes="title")
        self.curves = CurvePlot()

    def compose(self) -> ComposeResult:
        """Put the title above the curves."""
        yield self._title
        yield self.curves

    def on_mount(self) -> None:
        """Show what was given before there was a place for it."""
        self._show()

    def show(self, draw: Draw) -> None:
        """Draw with this function from now on."""
        self._draw = draw
        if self.is_mounted:
            self._show()

    def _show(self) -> None:
        if self._draw is None:
            return
        self._drawn = self.curves.show(self._draw) or self._draw(Size(columns=1, rows=1))
        self._show_title()

    @on(events.Resize)
    def _show_title(self) -> None:
        if self._drawn is not None:
            self._title.update(title(self._drawn, self.size.width - 1))


def title(drawing: Drawing, width: int) -> Content:
    """Return the plot's name and its legend, in the short form if the long one is too long."""
    long = _title(drawing, gap="  ", at=" at ")
    return long if long.cell_length <= width else _title(drawing, gap=" ", at="@")


def _title(drawing: Drawing, *, gap: str, at: str) -> Content:
    text = Content.styled(drawing.title, "bold")
    for entry in drawing.legend:
        text += Content(gap)
        if entry.stroke is not None:
            sample = f"{entry.stroke.sample} " if gap != " " else entry.stroke.sign
            text += Content.styled(sample, _COLOURS[entry.role])
        text += Content(entry.text)
    if best := ", ".join(at.join(entry.best) for entry in drawing.legend if entry.best):
        text += Content(f"{gap}best {best}")
    return text + Content.styled(f"{gap}{drawing.note}", "italic") if drawing.note else text
