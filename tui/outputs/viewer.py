"""The place where one output is shown, under the line that says which.

The rule this module protects: what is shown stays until there is something else to show; there is
no flicker of emptiness between two files.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.events import Resize
from textual.message import Message
from textual.widgets import ContentSwitcher, Static

from tui.outputs.decode import Frame
from tui.outputs.facts_view import FactsView
from tui.outputs.loading import Drawn, Page
from tui.outputs.picture_box import PictureBox
from tui.outputs.terminal import terminal
from tui.outputs.text_view import TextView
from tui.outputs.wrapping import Wrapped


class Viewer(Vertical, can_focus=True):
    """One output at a time."""

    class Resized(Message):
        """There is more or less place for an output."""

    HELP = """
    # Output

    `←` and `→` go to the picture before and the next one, `c` to all of them, `escape` to the list.
    """

    DEFAULT_CSS = """
    Viewer {
        width: 1fr;
        height: 1fr;
        #caption {
            height: 1;
            padding: 0 1;
            color: $text-muted;
            text-wrap: nowrap;
            text-overflow: ellipsis;
        }
        &:focus #caption { color: $text-accent; }
        ContentSwitcher { height: 1fr; }
        #said { padding: 0 1; color: $foreground; height: 1fr; }
    }
    """

    def compose(self) -> ComposeResult:
        """Lay out."""
        yield Static(id="caption", markup=False)
        with ContentSwitcher(initial="said"):
            yield Static(id="said", markup=False)
            yield PictureBox(id="picture")
            yield TextView(id="text")
            yield FactsView(id="facts")

    @property
    def shown(self) -> str:
        """What kind of thing is shown: said, picture, text or facts."""
        return str(self.query_one(ContentSwitcher).current)

    @property
    def text_view(self) -> TextView:
        """The view of texts."""
        return self.query_one(TextView)

    @property
    def box(self) -> PictureBox:
        """The view of pictures."""
        return self.query_one(PictureBox)

    @property
    def facts(self) -> FactsView:
        """The view of other files."""
        return self.query_one(FactsView)

    @property
    def text_width(self) -> int:
        """Cells of a line of text, beside padding and scrollbar, also while none is shown."""
        return max(1, self.query_one(ContentSwitcher).size.width - 3)

    @property
    def frame(self) -> Frame:
        """Where a picture would go."""
        place = self.query_one(ContentSwitcher).size
        red, green, blue = self.background_colors[1].rgb
        return Frame(
            columns=max(1, place.width),
            rows=max(1, place.height),
            cell=terminal().cell,
            background=(red, green, blue),
        )

    def caption(self, text: str) -> None:
        """Say which output it is."""
        self.query_one("#caption", Static).update(Content(text))

    def say(self, text: str) -> None:
        """Show a sentence in the place of an output."""
        self.query_one("#said", Static).update(Content(text))
        self.switch("said")

    def show_picture(self, drawn: Drawn) -> None:
        """Show a picture."""
        self.switch("picture")
        self.box.show(drawn)

    def show_page(self, page: Page) -> None:
        """Show a text."""
        self.switch("text")
        self.text_view.show(page.wrapped, page.text.language)

    def begin_text(self) -> None:
        """Show a text that begins now."""
        self.switch("text")
        self.text_view.show(Wrapped(self.text_width))

    def grow_text(self, text: str, *, anew: bool) -> None:
        """Add to the text; ``anew``: it takes the place of what is there."""
        if anew:
            self.begin_text()
        self.text_view.append(text)

    def on_resize(self, _event: Resize) -> None:
        """Say so: pictures are drawn for the place there is."""
        self.post_message(self.Resized())

    def switch(self, name: str) -> None:
        """Show one kind of thing; a picture that is no longer seen is freed."""
        self.query_one(ContentSwitcher).current = name
        if name != "picture":
            self.box.show(None)
