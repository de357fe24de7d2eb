"""The widgets in which values are written, one for each way of writing.

The rule this module protects: every one of them takes and gives a text, so that what a value means
is decided in ``tui.forms.entries`` alone.
"""

from __future__ import annotations

from typing import Protocol

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import ContentText
from textual.widget import Widget
from textual.widgets import Checkbox, Input, Select, TextArea

from tui.forms.completer import Completer
from tui.forms.entries import choice_text
from tui.forms.fields import NOTHING, Field, span
from tui.forms.offers import Source
from tui.forms.shapes import Control

_SEVERAL_LINES = frozenset({Control.LONG_TEXT, Control.LINES, Control.JSON})
_SEVERAL_PATHS = frozenset({Control.LORAS, Control.FILES})
_MOST_PATHS = 16

_HINTS = {
    Control.DURATION: "90s, 15m, 2h",
    Control.MOMENT: "2026-12-24T18:00, or +2h",
    Control.NAMES: "several with commas",
    Control.LINES: 'one a line; a line break in one as "\\n\\n"',
    Control.JOBS: "numbers of jobs",
    Control.JOB: "job:N or job:N@STEP",
    Control.ADAPTER: "job:N, or a folder",
    Control.FILE: "path of a file",
    Control.FILES: "path of a file",
    Control.DATA: "folder, or one FILE.jsonl",
    Control.LORAS: "path of a file, or path:0.8",
    Control.JSON: "as JSON",
}


class Writing(Protocol):
    """What all controls have in common."""

    @property
    def typed(self) -> str:
        """The text that the control holds."""

    def focus_input(self) -> None:
        """Put the cursor where one types."""


def control_for(field: Field, text: str, source: Source | None) -> Widget:
    """Return the widget for a field, a ``Writing`` that holds ``text``."""
    if field.control is Control.SWITCH:
        return Tick(text == choice_text(True) if text else bool(field.default is True))
    if field.control is Control.CHOICE:
        return Choice(field, text)
    if field.control in _SEVERAL_LINES:
        return Lines(text, placeholder(field))
    if field.control in _SEVERAL_PATHS:
        return Paths(text, placeholder(field), source)
    return Completer(source, placeholder=placeholder(field), text=text)


def placeholder(field: Field) -> str:
    """Return what stands in an empty field: what counts then, and what is allowed."""
    limits = span(field.shape) if field.control is Control.NUMBER else _HINTS.get(field.control, "")
    default = _default(field.default)
    return ", ".join(part for part in (default, limits) if part)


def _default(value: object) -> str:
    if value in (NOTHING, None, [], ""):
        return ""
    return f"default {value:g}" if isinstance(value, float) else f"default {value}"


class Tick(Checkbox):
    """A switch; the word beside it says how it stands, for screens without colour."""

    HELP = "## A switch\n\n**space** or **enter** turns it."

    def __init__(self, value: bool) -> None:
        super().__init__(choice_text(value), value, compact=True)

    @property
    def typed(self) -> str:
        """``yes`` or ``no``."""
        return choice_text(self.value)

    def focus_input(self) -> None:
        """Put the focus here."""
        self.focus(scroll_visible=False)

    def watch_value(self) -> None:
        """Say the new value."""
        super().watch_value()
        self.label = choice_text(self.value)


class Keep(Checkbox):
    """A file of the job that the form started from, sent again while it is ticked."""

    HELP = """\
## A file of the job you started from

It is sent again as long as this is ticked; **space** leaves it out. It need not travel again.
"""

    def __init__(self, label: ContentText) -> None:
        super().__init__(label, True, compact=True, classes="keep")


class Choice(Select[str]):
    """One of a few values, or the daemon's default."""

    HELP = "## A choice\n\n**enter** or **↓** lists the values; the first line leaves it unset."

    def __init__(self, field: Field, text: str) -> None:
        names = [choice_text(choice) for choice in field.shape.choices]
        unset = field.default in (NOTHING, None)
        super().__init__(
            [(name, name) for name in names],
            prompt="unset" if unset else f"default {choice_text(field.default)}",
            value=text if text in names else Select.NULL,
            compact=True,
        )

    @property
    def typed(self) -> str:
        """The chosen value, or nothing."""
        return self.selection or ""

    def focus_input(self) -> None:
        """Put the focus here."""
        self.focus(scroll_visible=False)


class Lines(TextArea):
    """A text of several lines, or several texts, one a line."""

    HELP = """\
## A longer text

**enter** begins a line, **tab** goes to the next field, **ctrl+z** and **ctrl+y** undo and redo.
"""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(
            text, soft_wrap=True, compact=True, placeholder=hint, highlight_cursor_line=False
        )
        # A text area takes a form feed, or a lone carriage return, for the end of a line.
        self._given, self._shown = text, self.text

    @property
    def typed(self) -> str:
        """The whole text; as it was given, while nobody has changed it."""
        return self._given if self.text == self._shown else self.text

    def focus_input(self) -> None:
        """Put the focus here."""
        self.focus(scroll_visible=False)


class Paths(Vertical):
    """Several paths; an empty line for one more is always there."""

    DEFAULT_CSS = "Paths { height: auto; }"

    def __init__(self, text: str, hint: str, source: Source | None) -> None:
        super().__init__()
        self._first = text.splitlines()
        self._hint = hint
        self._source = source

    def compose(self) -> ComposeResult:
        """Make a line for each path, and one more."""
        for path in [*self._first, ""]:
            yield self._line(path)

    def _line(self, path: str = "") -> Completer:
        return Completer(self._source, placeholder=self._hint, text=path)

    @property
    def typed(self) -> str:
        """The paths, one a line."""
        lines = [line.typed.strip() for line in self.query(Completer)]
        return "\n".join(line for line in (lines or self._first) if line)

    def focus_input(self) -> None:
        """Put the cursor into the first path."""
        self.query(Completer).first().focus_input()

    @on(Input.Changed)
    def _offer_another(self) -> None:
        lines = list(self.query(Completer))
        if lines[-1].typed and len(lines) < _MOST_PATHS:
            self.mount(self._line())
