"""The command that would submit the form, as one writes.

The rule this module protects: what is copied is the whole command, however much of it is shown.
"""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Static

from tui.forms.command import one_line


class Preview(Static, can_focus=True):
    """The equivalent command; a click or ``y`` copies it."""

    HELP = """\
## The same from a shell

This command submits what the form holds. **y**, **enter** or a click copies it (in a longer text
**ctrl+y** is redo; leave the text first).
"""
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "copy", "Copy command", show=False, id="form.preview_copy"),
    ]
    DEFAULT_CSS = """
    Preview {
        height: auto; min-height: 1; max-height: 3; padding: 0 1;
        background: $panel; color: $text-muted;
    }
    Preview:focus { color: $foreground; background: $foreground 18%; }
    """

    def __init__(self) -> None:
        super().__init__("", markup=False)
        self.command = ""

    def show(self, command: str) -> None:
        """Show another command."""
        if command != self.command:
            self.command = command
            self.update(f"$ {one_line(command)}")

    def on_click(self) -> None:
        """Copy."""
        self.action_copy()

    def action_copy(self) -> None:
        """Copy the command through the terminal (OSC 52)."""
        if self.command:
            self.app.copy_to_clipboard(self.command)
            self.notify("the command is copied", timeout=2)
