"""Where one types what to search a log for.

The rule this module protects: while it is not asked for it takes no room and no keys.
"""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input


class SearchBar(Input):
    """One line at the bottom of the log."""

    HELP = """
# Search in the log

The matches are marked while you type. `enter` goes to the last one above the screen's end and
searches the rest of the file; `escape` gives up. Capitals count only if you type some.
"""
    DEFAULT_CSS = """
    SearchBar, SearchBar:focus { border: none; height: 1; padding: 0 1; background: $boost; }
    SearchBar { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "give_up", "Give up", show=False, id="log.search-give-up"),
    ]

    class ChangedText(Message):
        """The text has changed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Closed(Message):
        """It was left with ``text``; ``accepted`` if that was entered and is not empty."""

        def __init__(self, text: str, *, accepted: bool) -> None:
            super().__init__()
            self.text = text
            self.accepted = accepted

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(placeholder="search the log", id=id)

    @property
    def is_open(self) -> bool:
        """Whether somebody types."""
        return self.display

    def ask(self, text: str) -> None:
        """Open, with an earlier text to change or replace."""
        self.value = text
        self.display = True
        self.screen.set_focus(self)
        self.action_select_all()

    def action_give_up(self) -> None:
        """Close without a search."""
        self._close(accepted=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Tell what is typed; setting the earlier text is nobody's typing."""
        event.stop()
        if self.is_open:
            self.post_message(self.ChangedText(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Close with the text."""
        event.stop()
        self._close(accepted=bool(event.value))

    def _close(self, *, accepted: bool) -> None:
        self.display = False
        self.post_message(self.Closed(self.value, accepted=accepted))
