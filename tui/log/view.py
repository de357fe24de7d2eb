"""Draws the lines that are in memory, and scrolls over them.

The rule this module protects: the rows that a reader looks at stay where they are, whatever is
added or taken away above and below. Only rows on the screen are ever drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.cache import LRUCache
from textual.geometry import Size
from textual.message import Message
from textual.reactive import var
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from tui.log.lines import Line
from tui.log.model import Model

_CACHED = 1024
_MORE = "→"


class LogView(ScrollView, can_focus=True, inherit_bindings=False):
    """The lines of a log."""

    ALLOW_SELECT = True
    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--match", "log--current", "log--more"}
    DEFAULT_CSS = """
    LogView {
        height: 1fr;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
        & > .log--match { text-style: underline; color: $foreground; background: $warning-muted; }
        & > .log--current { text-style: bold reverse; color: $text-warning; background: $surface; }
        & > .log--more { color: $text-accent; text-style: bold; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Line up", show=False, id="log.up"),
        Binding("down,j", "move(1)", "Line down", show=False, id="log.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="log.page-up"),
        Binding("pagedown,space", "page(1)", "Page down", show=False, id="log.page-down"),
        Binding("left", "shift(-8)", "Left", show=False, id="log.left"),
        Binding("right", "shift(8)", "Right", show=False, id="log.right"),
    ]

    wrap: var[bool] = var(False)
    notice: var[str] = var("")

    class Moved(Message):
        """The reader has scrolled."""

    def __init__(self, model: Model, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.model = model
        self._strips: LRUCache[int, Strip] = LRUCache(_CACHED)
        self._base: Style | None = None
        self._placing = False

    # What the tab does with it

    @property
    def top_row(self) -> int:
        """The number, as the window counts, of the row at the top of the screen."""
        return self.model.window.top + self.scroll_offset.y

    @property
    def rows(self) -> int:
        """How many rows fit on the screen."""
        return max(1, self.scrollable_content_region.height)

    @property
    def is_at_bottom(self) -> bool:
        """Whether the last row in memory is on the screen."""
        return self.scroll_offset.y >= self.max_scroll_y

    @property
    def base_style(self) -> Style:
        """How plain text looks; asked for with every row, and changed with the theme."""
        if self._base is None:
            self._base = self.rich_style
        return self._base

    @contextmanager
    def changing(self, *, anew: bool = False) -> Iterator[None]:
        """Change the model inside; afterwards the reader sees the same rows, or the log's end.

        With ``anew`` the lines are others, and the place is the caller's to set.
        """
        row = self.top_row
        yield
        if anew:
            self._strips.clear()
        self._measure()
        if self.model.following:
            self.place(self.model.window.bottom)
        elif not anew:
            self.place(row)
        self.refresh()

    def place(self, row: int) -> None:
        """Bring a row to the top of the screen, or as near as there are rows below."""
        self._placing = True
        try:
            wanted = min(row - self.model.window.top, self.max_scroll_y)
            self.scroll_to(y=max(0, wanted), animate=False, force=True)
        finally:
            self._placing = False

    def reveal(self, index: int) -> None:
        """Bring a line to the screen, about the middle if it is not there yet."""
        row = self.model.window.row_of(index)
        if not self.top_row <= row < self.top_row + self.rows:
            self.place(row - self.rows // 2)
        self.refresh()

    def shown(self) -> list[Line]:
        """Return the lines of which a row is on the screen."""
        window = self.model.window
        found = [window.at(row) for row in range(self.top_row, self.top_row + self.rows)]
        return [window[index] for index in sorted({place[0] for place in found if place})]

    def forget_strips(self) -> None:
        """Draw every line anew: what is highlighted has changed."""
        self._strips.clear()
        self.refresh()

    # Keys

    def action_move(self, rows: int) -> None:
        """Go up or down."""
        self.scroll_to(y=self.scroll_offset.y + rows, animate=False, force=True)

    def action_page(self, pages: int) -> None:
        """Go up or down by a screen; one row stays."""
        self.action_move(pages * max(1, self.rows - 1))

    def action_shift(self, cells: int) -> None:
        """Go left or right, where lines are longer than the screen."""
        self.scroll_to(x=self.scroll_offset.x + cells, animate=False, force=True)

    # Events

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Tell the tab, unless it was the tab."""
        super().watch_scroll_y(old_value, new_value)
        if not self._placing and round(old_value) != round(new_value):
            self.post_message(self.Moved())

    def watch_wrap(self) -> None:
        """Lay the lines out anew; the one at the top stays there."""
        if self.is_mounted:
            self._lay_out()
            self.scroll_to(x=0, animate=False, force=True)

    def watch_notice(self) -> None:
        """Draw it."""
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        """Wrap at the new width."""
        del event
        self._lay_out()

    def notify_style_update(self) -> None:
        """Draw in the colours of another theme."""
        super().notify_style_update()
        self._base = None
        self._strips.clear()

    def selection_updated(self, selection: Selection | None) -> None:
        """Draw what is selected."""
        del selection
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the selected text; a selection's rows are the window's."""
        window = self.model.window
        first = max(window.top, selection.start.y if selection.start else window.top)
        last = min(window.bottom - 1, selection.end.y if selection.end else window.bottom)
        parts = []
        for row in range(first, last + 1):
            text = self._row(row).text
            begin, end = selection.get_span(row) or (0, 0)
            parts.append(text[begin : None if end == -1 else end])
        return "\n".join(parts), "\n"

    # Drawing

    def render_line(self, y: int) -> Strip:
        """Draw one row of the screen."""
        width = self.scrollable_content_region.width
        base = self.base_style
        if self.notice:
            return self._notice_line(y, width, base)
        row = self.top_row + y
        if self.model.window.at(row) is None:
            return Strip.blank(width, base)
        strip = self._selected(self._row(row), row)
        x = 0 if self.wrap else self.scroll_offset.x
        drawn = strip.crop_extend(x, x + width, base)
        if strip.cell_length > x + width:
            more = Segment(_MORE, base + self.get_component_rich_style("log--more"))
            drawn = Strip([*drawn.crop(0, width - 1), more], width)
        return drawn.apply_offsets(x, row)

    def _row(self, row: int) -> Strip:
        """Return one row, as wide as its text is."""
        window = self.model.window
        place = window.at(row)
        if place is None:
            return Strip.blank(0)
        line = window[place[0]]
        strip = self._strip(line)
        breaks = window.breaks(line)
        if len(breaks) == 1:
            return strip
        end = breaks[place[1] + 1] if place[1] + 1 < len(breaks) else line.cells
        return strip.crop(breaks[place[1]], end)

    def _strip(self, line: Line) -> Strip:
        if line is self.model.window.open:
            return self._draw(line)
        known = self._strips.get(line.start)
        if known is None:
            known = self._strips[line.start] = self._draw(line)
        return known

    def _draw(self, line: Line) -> Strip:
        text = Text(line.text, no_wrap=True, end="")
        text.stylize(self.base_style)
        for start, end, style in line.spans:
            text.stylize(style, start, end)
        needle = self.model.needle
        if needle is not None:
            current = line.start == self.model.current
            mark = self.get_component_rich_style("log--current" if current else "log--match")
            for start, end in needle.spans(line.text):
                text.stylize(mark, start, end)
        return Strip(text.render(self.app.console), line.cells)

    def _selected(self, strip: Strip, row: int) -> Strip:
        selection = self.text_selection
        span = selection.get_span(row) if selection else None
        if span is None:
            return strip
        length = strip.cell_length
        begin, end = span[0], length if span[1] == -1 else min(span[1], length)
        if begin >= end:
            return strip
        style = self.screen.get_component_rich_style("screen--selection")
        before, inside, after = (
            strip.crop(0, begin),
            strip.crop(begin, end),
            strip.crop(end, length),
        )
        marked = Strip(Segment.apply_style(inside, post_style=style), inside.cell_length)
        return Strip.join([before, marked, after])

    def _notice_line(self, y: int, width: int, base: Style) -> Strip:
        text = Text(self.notice)
        text.stylize(base)
        lines = text.wrap(self.app.console, max(1, width - 4))
        index = y - max(0, (self.rows - len(lines)) // 2)
        if not 0 <= index < len(lines):
            return Strip.blank(width, base)
        line = lines[index]
        line.rstrip()
        left = max(0, (width - line.cell_len) // 2)
        strip = Strip([Segment(" " * left, base), *line.render(self.app.console)])
        return strip.adjust_cell_length(width, base)

    def _lay_out(self) -> None:
        """Wrap at the width that there is, with the same line at the top."""
        window = self.model.window
        place = window.at(self.top_row)
        window.set_width(max(8, self.scrollable_content_region.width) if self.wrap else None)
        self._measure()
        if self.model.following:
            self.place(window.bottom)
        elif place is not None:
            self.place(window.row_of(place[0]))
        self.refresh()

    def _measure(self) -> None:
        window = self.model.window
        width = 0 if self.wrap else window.cells
        self.virtual_size = Size(width, window.bottom - window.top)
