"""A picture on the screen, by whatever the terminal can draw.

The rule this module protects: the thread that draws neither reads nor scales pictures; it gets them
in the size that is drawn. What a terminal holds of a picture that has gone is freed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Container
from textual.strip import Strip
from textual.widget import Widget

from tui.outputs.terminal import Drawing, terminal

if TYPE_CHECKING:
    from tui.outputs.loading import Drawn


class HalfCells(Widget):
    """Finished lines of half-cells."""

    can_focus = False

    def __init__(self) -> None:
        super().__init__()
        self._strips: list[Strip] = []

    def show(self, drawn: Drawn) -> None:
        """Show other lines."""
        self._strips = drawn.strips
        self.styles.width, self.styles.height = drawn.picture.columns, drawn.picture.rows
        self.refresh(layout=True)

    def render_line(self, y: int) -> Strip:
        """Return a line."""
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width)


class PictureBox(Container):
    """Holds one picture, in its middle."""

    DEFAULT_CSS = """
    PictureBox {
        align: center middle;
        width: 1fr;
        height: 1fr;
        overflow: hidden;
    }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.drawn: Drawn | None = None
        self._child: Widget | None = None

    def show(self, drawn: Drawn | None) -> None:
        """Show a picture, or none."""
        self.drawn = drawn
        if drawn is None:
            self._free()
        elif terminal().drawing is Drawing.HALF_CELLS:
            self._show_cells(drawn)
        else:
            self._show_pixels(drawn)

    def on_unmount(self) -> None:
        """Free what the terminal holds."""
        self._free()

    def _show_cells(self, drawn: Drawn) -> None:
        if not isinstance(self._child, HalfCells):
            self._child = HalfCells()
            self.mount(self._child)
        self._child.show(drawn)

    def _show_pixels(self, drawn: Drawn) -> None:
        # Its import asks the terminal; ``prepare`` has done that, before the interface began.
        from textual_image import widget

        kitty = terminal().drawing is Drawing.KITTY
        kind = widget.TGPImage if kitty else widget.SixelImage
        if self._child is None:
            self._child = kind()
            self.mount(self._child)
        self._child.styles.width = drawn.picture.columns
        self._child.styles.height = drawn.picture.rows
        self._child.image = drawn.picture.image  # type: ignore[attr-defined]

    def _free(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if not isinstance(child, HalfCells):
            child.image = None  # type: ignore[attr-defined]
        child.remove()
