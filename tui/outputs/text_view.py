"""A view of a text, finished or growing.

The rule this module protects: only the lines that are seen are highlighted and drawn, so that a
text of a megabyte is there at once; a growing text is followed only while its end is in view.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Resize
from textual.geometry import Size
from textual.highlight import highlight
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual

from tui.outputs.wrapping import Piece, Wrapped

# Longer lines are not highlighted.
_MOST_HIGHLIGHTED = 4_000

_FIELD = re.compile(r"(── .*|[\w.-]+:)(.*)", re.DOTALL)


class TextView(ScrollView, can_focus=True):
    """A text in lines as wide as the view."""

    HELP = """
    # Text

    `↑` `↓` `pgup` `pgdn` scroll, `g` and `G` go to its beginning and end. A text that is being made
    is followed while its end is in view. `e` shows the whole file in your editor or pager.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Down", show=False, id="outputs.text.down"),
        Binding("k", "scroll_up", "Up", show=False, id="outputs.text.up"),
        Binding("g", "scroll_home", "Beginning", show=False, id="outputs.text.home"),
        Binding("G", "scroll_end", "End", show=False, id="outputs.text.end"),
    ]

    DEFAULT_CSS = """
    TextView {
        width: 1fr;
        height: 1fr;
        padding: 0 1;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-gutter: stable;
        scrollbar-size-vertical: 1;
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.wrapped = Wrapped()
        self._language: str | None = None

    @property
    def room(self) -> int:
        """Cells of a line."""
        return max(1, self.scrollable_content_region.width or 80)

    def show(self, wrapped: Wrapped, language: str | None = None) -> None:
        """Show a text from its beginning."""
        self.wrapped, self._language = wrapped, language
        if self.size.width and wrapped.width != self.room:  # without a size yet: when it has one
            wrapped.rewrap(self.room)
        self._resize_text()
        self.scroll_to(y=0, animate=False, immediate=True)

    def append(self, text: str) -> None:
        """Add to a text that grows; stay at its end if it is in view."""
        at_end = self.is_vertical_scroll_end
        self.wrapped.append(text)
        self._resize_text()
        if at_end:
            self.scroll_end(animate=False, immediate=True, x_axis=False)

    def on_resize(self, _event: Resize) -> None:
        """Wrap anew."""
        if self.wrapped.width != self.room:
            at_end = self.is_vertical_scroll_end
            self.wrapped.rewrap(self.room)
            self._resize_text()
            if at_end and self.scroll_y:
                self.scroll_end(animate=False, immediate=True, x_axis=False)

    # Pages turn at once: a scroll that glides draws every line on its way.

    def action_page_down(self) -> None:
        """Scroll a page down."""
        self.scroll_page_down(animate=False)

    def action_page_up(self) -> None:
        """Scroll a page up."""
        self.scroll_page_up(animate=False)

    def action_scroll_home(self) -> None:
        """Go to the beginning."""
        self.scroll_home(animate=False)

    def action_scroll_end(self) -> None:
        """Go to the end."""
        self.scroll_end(animate=False)

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        place = y + round(self.scroll_offset.y)
        width = self.scrollable_content_region.width
        style = self.visual_style
        if place >= len(self.wrapped.pieces):
            return Strip.blank(width, style.rich_style)
        piece = self.wrapped.pieces[place]
        strips = Visual.to_strips(self, self._content(piece), width, 1, style)
        return strips[0].adjust_cell_length(width, style.rich_style)

    def _content(self, piece: Piece) -> Content:
        """Return what a piece shows; of a very long line no more is touched than that."""
        line = self.wrapped.lines[piece.line]
        if self._language is None or len(line) > _MOST_HIGHLIGHTED:
            return Content(line[piece.start : piece.stop].rstrip(" "))
        return highlighted(line, self._language)[piece.start : piece.stop].rstrip(" ")

    def _resize_text(self) -> None:
        self.virtual_size = Size(self.room, len(self.wrapped.pieces))
        self.refresh()


@lru_cache(maxsize=1_000)
def highlighted(line: str, language: str) -> Content:
    """Return a line with the styles of its language; of ``rows`` the names of the fields."""
    plain = Content(line)
    if language == "rows" and not line.startswith("{"):
        found = _FIELD.fullmatch(line)
        return plain.stylize("bold $text-primary", 0, len(found[1])) if found else plain
    content = highlight(line, language="json" if language == "rows" else language)
    return content if content.plain == line else plain
