"""The question where to save.

The rule this module protects: nothing is written before the user has agreed to a folder.
"""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label


class SaveScreen(ModalScreen[str | None]):
    """Asks for a folder; answers with what was typed, or None."""

    HELP = """
    # Save

    Type a folder; it is made if it is not there. A file there that differs is never overwritten.
    `enter` saves, `escape` leaves everything as it is.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", id="outputs.save.leave"),
    ]

    DEFAULT_CSS = """
    SaveScreen {
        align: center middle;
        #save-box {
            width: 64;
            max-width: 100%;
            height: auto;
            padding: 0 1;
            border: round $primary;
            background: $surface;
        }
        Input { margin: 1 0; }
        .hint { color: $text-muted; }
    }
    """

    def __init__(self, what: str, folder: str) -> None:
        super().__init__()
        self._what, self._folder = what, folder

    def compose(self) -> ComposeResult:
        """Lay out."""
        with Vertical(id="save-box"):
            yield Label(f"Save {self._what} in the folder", markup=False)
            yield Input(self._folder, id="folder", select_on_focus=False, compact=True)
            yield Label("enter saves · escape leaves", classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer with the folder."""
        self.dismiss(event.value)

    def action_leave(self) -> None:
        """Answer with nothing."""
        self.dismiss(None)
