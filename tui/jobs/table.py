"""The table of jobs on the screen.

The rule this module protects: only rows that are seen are drawn, so ten thousand jobs cost what
twenty do, and cursor and scroll stay with the job, whatever comes in between.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from daemon.cli.table import cell_width, clip
from tui.jobs.board import Board, Order
from tui.jobs.columns import COLUMNS, GAP, Fitted, fit

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

_NAMES = tuple(column.name for column in COLUMNS)
_STATE_CLASSES = ("running", "paused", "succeeded", "failed", "held", "waiting", "cancelled")

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class JobTable(ScrollView, can_focus=True):
    """The queue: a job to a line."""

    HELP = """
# Jobs

Running, waiting and ended jobs, newest first. **/** filters: `user:ana kind:train state:failed` and
any words; `a` shows only your own. **s** sorts by the next column, **S** the other way round; a
click on a title does both. What may be done with a job stands in the footer and in the palette
(**ctrl+p**).
"""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "jobs--header",
        "jobs--cursor",
        "jobs--quiet",
        *(f"jobs--{state}" for state in _STATE_CLASSES),
    }

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False, id="jobs.down"),
        Binding("up,k", "move(-1)", "Up", show=False, id="jobs.up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="jobs.page_down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="jobs.page_up"),
        Binding("home,g", "top", "First", show=False, id="jobs.first"),
        Binding("end,G", "bottom", "Last", show=False, id="jobs.last"),
        Binding("s", "sort", "Sort", id="jobs.sort"),
        Binding("S", "reverse", "Reverse", show=False, id="jobs.reverse"),
        Binding("enter", "open", "Detail", show=False, id="jobs.open"),
    ]

    number: reactive[int | None] = reactive(None)

    class Selected(Message):
        """Another job is under the cursor; None where there is none."""

        def __init__(self, number: int | None) -> None:
            super().__init__()
            self.number = number

    class Opened(Message):
        """The job under the cursor is to be looked at."""

    def __init__(self, board: Board, *, now: Now = utc_now, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.board = board
        self._now = now
        self._fitted: tuple[Fitted, ...] = ()

    # What the app tells

    def board_changed(self) -> None:
        """Draw what has changed; the cursor stays on its job, or goes where that was."""
        place = self.board.place_of(self.number)
        if place is None and self.board.shown:
            last = len(self.board.shown) - 1
            self.number = self.board.shown[min(self._last_place, last)]
        elif place is None:
            self.number = None
        self._measure()
        self.refresh()

    @property
    def job(self) -> JobLine | None:
        """The job under the cursor."""
        return None if self.number is None else self.board.get(self.number)

    # Moving

    _last_place = 0

    def watch_number(self, number: int | None) -> None:
        """Tell who shows the detail, and keep the cursor in sight."""
        self._last_place = self.board.place_of(number) or 0
        self._keep_in_sight()
        self.post_message(self.Selected(number))
        self.refresh()

    def _keep_in_sight(self) -> None:
        # Two lines, because the titles take the first.
        self.scroll_to_region(
            Region(0, self._last_place, 1, 2), animate=False, force=True, immediate=True
        )

    def _go(self, place: int) -> None:
        if self.board.shown:
            self.number = self.board.shown[max(0, min(place, len(self.board.shown) - 1))]

    def _place(self) -> int:
        return self.board.place_of(self.number) or 0

    def action_move(self, by: int) -> None:
        """Go down or up."""
        self._go(self._place() + by)

    def action_page(self, by: int) -> None:
        """Go a page down or up."""
        self._go(self._place() + by * max(1, self.scrollable_content_region.height - 2))

    def action_top(self) -> None:
        """Go to the first job."""
        self._go(0)

    def action_bottom(self) -> None:
        """Go to the last job."""
        self._go(len(self.board.shown) - 1)

    def action_open(self) -> None:
        """Look at the job under the cursor."""
        self.post_message(self.Opened())

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._sort(self.board.order.next_column(_NAMES))

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._sort(self.board.order.reversed())

    def _sort(self, order: Order) -> None:
        self.board.show(self._now(), order=order)
        self.board_changed()
        self._keep_in_sight()

    # Mouse

    def on_click(self, event: events.Click) -> None:
        """Choose a job, or sort by the title that is clicked; twice opens the job."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if offset.y == 0:
            self._sort_by_title(offset.x)
            return
        place = offset.y - 1 + self.scroll_offset.y
        if place < len(self.board.shown):
            self._go(place)
            if event.chain > 1:
                self.action_open()

    def _sort_by_title(self, x: int) -> None:
        start = 0
        for fitted in self._fitted:
            if start <= x < start + fitted.width:
                name, order = fitted.column.name, self.board.order
                self._sort(
                    order.reversed()
                    if order.column == name
                    else Order(column=name, descending=False)
                )
                return
            start += fitted.width + GAP

    # Drawing

    def on_resize(self) -> None:
        """Fit the columns to the new width."""
        self._measure()

    def _measure(self) -> None:
        width = self.scrollable_content_region.width
        highest = len(str(max(self.board.shown, default=0)))
        self._fitted = fit(width, highest)
        self.virtual_size = Size(width, len(self.board.shown) + 1)

    def render_line(self, y: int) -> Strip:
        """Draw a line: the titles stay, the jobs scroll below them."""
        width = self.scrollable_content_region.width
        if y == 0:
            return self._line(self._titles(), self.get_component_rich_style("jobs--header"), width)
        place = y - 1 + self.scroll_offset.y
        if place >= len(self.board.shown):
            return Strip.blank(width, self.rich_style)
        return self._row(self.board.at(place), width)

    def _titles(self) -> list[tuple[str, Style | None]]:
        order = self.board.order
        cells: list[tuple[str, Style | None]] = []
        for fitted in self._fitted:
            title = fitted.column.title
            if fitted.column.name == order.column:
                title += "↓" if order.descending else "↑"
            cells.append((_cell(title, fitted), None))
        return cells

    def _row(self, job: JobLine, width: int) -> Strip:
        now = self._now()
        base = self.rich_style
        is_current = job["id"] == self.number
        if is_current:
            base += self.get_component_rich_style("jobs--cursor")
        quiet = self.get_component_rich_style("jobs--quiet", partial=True)
        cells: list[tuple[str, Style | None]] = []
        for fitted in self._fitted:
            text = _cell(fitted.column.text(job, now), fitted)
            style = None
            if fitted.column.name == "state" and job["state"] in _STATE_CLASSES and not is_current:
                style = self.get_component_rich_style(f"jobs--{job['state']}", partial=True)
            elif not job["mine"] and fitted.column.name in ("user", "name") and not is_current:
                style = quiet
            cells.append((text, style))
        return self._line(cells, base, width)

    def _line(self, cells: list[tuple[str, Style | None]], base: Style, width: int) -> Strip:
        segments = []
        for place, (text, style) in enumerate(cells):
            gap = " " * GAP if place + 1 < len(cells) else ""
            segments.append(Segment(text, base + style if style else base))
            segments.append(Segment(gap, base))
        return Strip(segments).adjust_cell_length(width, base)


def _cell(text: str, fitted: Fitted) -> str:
    """Return a text in exactly the column's cells."""
    cut = clip(text, fitted.width)
    room = " " * (fitted.width - cell_width(cut))
    return room + cut if fitted.column.right else cut + room
