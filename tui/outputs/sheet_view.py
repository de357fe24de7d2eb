"""The contact sheet: all pictures of a job, small.

The rule this module protects: only the page that is seen is held; pictures come one by one, and
each is seen as soon as it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid as GridLayout
from textual.containers import Vertical
from textual.content import Content
from textual.events import Click, Resize
from textual.widgets import Static

from tui.outputs.captions import sheet_caption
from tui.outputs.decode import Frame
from tui.outputs.files import Row
from tui.outputs.grid import Grid, arrange
from tui.outputs.loading import Drawn, Problem
from tui.outputs.messages import SheetChosen, SheetWanted
from tui.outputs.picture_box import PictureBox
from tui.outputs.safe import shortened
from tui.outputs.terminal import terminal


class Thumb(Vertical):
    """A small picture over its name."""

    def __init__(self, row: Row, width: int) -> None:
        super().__init__()
        self.row = row
        self._label = shortened(row.title, width)
        self._content: Drawn | Problem | None = None

    def compose(self) -> ComposeResult:
        """Lay out."""
        yield PictureBox()
        yield Static(Content(self._label), classes="label")

    def on_mount(self) -> None:
        """Show what came before there was a place for it."""
        self._show()

    def show(self, content: Drawn | Problem) -> None:
        """Show the picture, or that it cannot be shown."""
        self._content = content
        if self.query(PictureBox):
            self._show()

    def _show(self) -> None:
        if isinstance(self._content, Drawn):
            self.query_one(PictureBox).show(self._content)
        elif self._content is not None:
            self.query_one(".label", Static).update(Content("cannot be shown"))


class SheetView(Vertical, can_focus=True):
    """All pictures of the job, with a cursor."""

    HELP = """
    # Contact sheet

    The arrow keys move, `pgup` and `pgdn` turn pages, `enter` shows the picture, `escape` or `c`
    goes back to the list.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1, 0, 0)", "Left", show=False, id="outputs.sheet.left"),
        Binding("right", "move(1, 0, 0)", "Right", show=False, id="outputs.sheet.right"),
        Binding("up,k", "move(0, -1, 0)", "Up", show=False, id="outputs.sheet.up"),
        Binding("down,j", "move(0, 1, 0)", "Down", show=False, id="outputs.sheet.down"),
        Binding("pageup", "move(0, 0, -1)", "Page before", show=False, id="outputs.sheet.before"),
        Binding("pagedown", "move(0, 0, 1)", "Next page", show=False, id="outputs.sheet.next"),
        Binding("home", "go(0)", "First", show=False, id="outputs.sheet.first"),
        Binding("end", "go(-1)", "Last", show=False, id="outputs.sheet.last"),
        Binding("enter", "choose", "Show", id="outputs.sheet.choose"),
    ]

    DEFAULT_CSS = """
    SheetView {
        width: 1fr;
        height: 1fr;
        #sheet-caption { height: 1; padding: 0 1; color: $text-muted; text-wrap: nowrap; }
        &:focus #sheet-caption { color: $text-accent; }
        #sheet { height: 1fr; grid-gutter: 0; overflow: hidden; }
        Thumb { border: round $foreground 20%; }
        Thumb.-cursor { border: round $accent; }
        &:focus Thumb.-cursor { border: heavy $accent; }
        .label { height: 1; width: 1fr; text-align: center; color: $text-muted; text-wrap: nowrap; }
        Thumb.-cursor .label { color: $foreground; text-style: bold; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.rows: list[Row] = []
        self.index = 0
        self._laid: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out."""
        yield Static(id="sheet-caption", markup=False)
        yield GridLayout(id="sheet")

    @property
    def grid(self) -> Grid:
        """The geometry of the place there is."""
        place = self.query_one("#sheet").size
        return arrange(max(1, len(self.rows)), max(1, place.width), max(1, place.height))

    @property
    def row(self) -> Row | None:
        """The picture under the cursor."""
        return self.rows[self.index] if self.index < len(self.rows) else None

    def show(self, rows: Sequence[Row], key: str | None) -> None:
        """Show pictures with the cursor on the one that has ``key``, else where it was."""
        self.rows = list(rows)
        keys = [row.key for row in rows]
        self.index = keys.index(key) if key in keys else min(self.index, max(0, len(keys) - 1))
        self._lay()

    def forget(self) -> None:
        """Hold nothing any more."""
        self.rows, self.index, self._laid = [], 0, ()
        self.query_one("#sheet").remove_children()

    def place(self, row: Row, content: Drawn | Problem) -> None:
        """Show a picture that came, if its page is still shown."""
        for thumb in self.query(Thumb):
            if thumb.row == row:
                thumb.show(content)

    def on_resize(self, _event: Resize) -> None:
        """Lay out anew."""
        if self.rows:
            self.call_after_refresh(self._lay)

    def on_click(self, event: Click) -> None:
        """Put the cursor on a picture; a second click shows it."""
        above = event.widget.ancestors_with_self if event.widget else []
        thumb = next((node for node in above if isinstance(node, Thumb)), None)
        if thumb is not None and thumb.row in self.rows:
            self._go(self.rows.index(thumb.row))
            if event.chain > 1:
                self.action_choose()

    def action_move(self, columns: int, rows: int, pages: int) -> None:
        """Move the cursor."""
        if self.rows:
            self._go(self.grid.moved(self.index, columns=columns, rows=rows, pages=pages))

    def action_go(self, index: int) -> None:
        """Go to the first or the last picture."""
        if self.rows:
            self._go(index % len(self.rows))

    def action_choose(self) -> None:
        """Show the picture under the cursor."""
        if self.row is not None:
            self.post_message(SheetChosen(row=self.row))

    def _go(self, index: int) -> None:
        self.index = index
        self._lay()

    def _lay(self) -> None:
        """Lay the page out if it is another one, and mark the cursor."""
        grid = self.grid
        page = grid.page_of(self.index)
        shown = [self.rows[index] for index in grid.span(page) if index < len(self.rows)]
        laid = (grid.across, grid.width, grid.height, *(row.key for row in shown))
        if laid != self._laid:
            self._laid = laid
            self._mount_page(grid, shown)
        for thumb in self.query(Thumb):
            thumb.set_class(thumb.row == self.row, "-cursor")
        caption = sheet_caption(self.rows, self.index, page, grid.pages)
        self.query_one("#sheet-caption", Static).update(Content(caption))

    def _mount_page(self, grid: Grid, shown: Sequence[Row]) -> None:
        sheet = self.query_one("#sheet", GridLayout)
        sheet.styles.grid_size_columns = grid.across
        sheet.styles.grid_columns = str(grid.width)
        sheet.styles.grid_rows = str(grid.height)
        columns, rows = grid.picture
        sheet.remove_children()
        sheet.mount(*(Thumb(row, columns) for row in shown))
        red, green, blue = self.background_colors[1].rgb
        frame = Frame(
            columns=columns, rows=rows, cell=terminal().cell, background=(red, green, blue)
        )
        self.post_message(SheetWanted(rows=shown, frame=frame))
