"""The list of a job's outputs.

The rule this module protects: the cursor stays on the file it is on, whatever comes or goes around
it; only what has changed is written anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Resize
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui.outputs.files import Row, row_line


class FileList(OptionList):
    """Files by name, with their sizes; checkpoints by their steps."""

    HELP = """
    # Files

    What the job has made, results first, then checkpoints. What is just being made stands on top.
    `▣` is a picture, `≡` a text; of other files it is shown what they are and how to use them.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False, id="outputs.down"),
        Binding("k", "cursor_up", "Up", show=False, id="outputs.up"),
    ]

    DEFAULT_CSS = """
    FileList {
        height: 1fr;
        max-height: 100%;
        padding: 0;
        border: none;
        background: transparent;
        scrollbar-size-vertical: 1;
        &:focus { border: none; }
    }
    """

    def __init__(self) -> None:
        super().__init__(compact=True, markup=False)
        self._rows: list[Row] = []
        self._shown_lines: list[str] = []

    def show(self, rows: Sequence[Row], key: str | None) -> None:
        """Show rows with the cursor on the one that has ``key``."""
        before, self._rows = self._rows, list(rows)
        kept = [row.key for row in rows[: len(before)]] == [row.key for row in before]
        with self.prevent(OptionList.OptionHighlighted):
            if not kept:
                self._fill()
            else:
                self._rewrite()
                self.add_options(self._made(len(before)))
            self.move_to(key)

    def move_to(self, key: str | None) -> None:
        """Put the cursor on a row, if it is there."""
        places = [place for place, row in enumerate(self._rows) if row.key == key]
        if places and self.highlighted != places[0]:
            self.highlighted = places[0]

    def row_at(self, place: int) -> Row | None:
        """Return the row of an option."""
        return self._rows[place] if 0 <= place < len(self._rows) else None

    def on_resize(self, _event: Resize) -> None:
        """Fit the lines to another width."""
        self._rewrite()

    def _fill(self) -> None:
        scrolled = self.scroll_y
        self.clear_options()
        self._shown_lines = []
        self.add_options(self._made(0))
        self.scroll_to(y=scrolled, animate=False)

    def _made(self, start: int) -> list[Option]:
        lines = [row_line(row, self._room) for row in self._rows[start:]]
        self._shown_lines[start:] = lines
        return [Option(Content(line)) for line in lines]

    def _rewrite(self) -> None:
        for place, line in enumerate(self._shown_lines):
            new = row_line(self._rows[place], self._room)
            if new != line:
                self._shown_lines[place] = new
                self.replace_option_prompt_at_index(place, Content(new))

    @property
    def _room(self) -> int:
        """Cells for a line, beside the padding of an option and the scrollbar."""
        return max(1, (self.scrollable_content_region.width or 40) - 2)
