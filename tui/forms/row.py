"""One field of a form: its name, its value, its help, and what is wrong with it.

The rule this module protects: a complaint stands beside the value that it is about, and goes as
soon as that is changed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Checkbox, Input, Label, Select, Static, TextArea

from daemon.errors import UsageError
from tui.forms.controls import Keep, Writing, control_for
from tui.forms.entries import Entry, choice_text, read
from tui.forms.fields import NOTHING, Field
from tui.forms.offers import Source
from tui.forms.shapes import Control

_DIGITS = 8

# What the daemon advises a program to do about a file that it no longer has.
_FOR_PROGRAMS = "/blobs/"


class FieldRow(Vertical):
    """A field with its label, control, help and complaint."""

    DEFAULT_CSS = """
    FieldRow {
        layout: grid; grid-size: 2; grid-columns: 19 1fr; grid-rows: auto; grid-gutter: 0 1;
        height: auto; border-left: blank; padding-right: 1;
    }
    FieldRow:focus-within { border-left: outer $accent; }
    FieldRow > .label { width: 100%; }
    FieldRow:focus-within > .label { text-style: bold; color: $text-accent; }
    FieldRow > .kept { height: auto; }
    FieldRow > .about { color: $text-muted; }
    FieldRow > .about, FieldRow > .complaint {
        column-span: 2; padding-left: 20; height: auto; width: 100%;
    }
    FieldRow > .complaint { display: none; color: $text-error; text-style: bold; }
    FieldRow.-wrong > .complaint { display: block; }
    FieldRow.-wrong > .label { color: $text-error; }
    FieldRow Input, FieldRow TextArea, FieldRow SelectCurrent { background: $foreground 7%; }
    FieldRow TextArea { padding: 0; height: auto; min-height: 2; max-height: 8; }
    FieldRow Select:focus > SelectCurrent, FieldRow Input:focus, FieldRow TextArea:focus {
        background: $foreground 18%;
    }
    FieldRow Checkbox, FieldRow Checkbox:focus { border: none; padding: 0; }
    """

    class Edited(Message):
        """The field's value has changed."""

        def __init__(self, row: FieldRow) -> None:
            super().__init__()
            self.row = row

    def __init__(
        self, field: Field, entry: Entry, source: Source | None, origin: int | None
    ) -> None:
        super().__init__(id=f"{field.part}-{field.name}")
        self.field = field
        self.initial = entry
        self._origin = origin
        self._control = control_for(field, entry.text, source)
        self._keeps = [Keep(_keeping(kept.label, kept.sha256, origin)) for kept in entry.kept]

    def compose(self) -> ComposeResult:
        """Lay out label, value and help."""
        yield Label(self.field.label, classes="label", markup=False)
        if self._keeps:
            with Vertical(classes="kept"):
                yield self._control
                yield from self._keeps
        else:
            yield self._control
        yield Static(self.field.help, classes="about", markup=False)

    @property
    def control(self) -> Writing:
        """The widget in which the value is written."""
        return cast("Writing", self._control)

    @property
    def entry(self) -> Entry:
        """What the field holds now."""
        if not self.is_attached:
            return self.initial
        kept = zip(self.initial.kept, self._keeps, strict=True)
        return Entry(text=self.control.typed, kept=tuple(file for file, keep in kept if keep.value))

    @property
    def edited(self) -> bool:
        """Whether something was changed since the form was opened."""
        return not _alike(self.field, self.entry, self.initial)

    @property
    def given(self) -> bool:
        """Whether the field holds something that would travel."""
        return not _alike(self.field, self.entry, Entry())

    @property
    def is_wrong(self) -> bool:
        """Whether there is a complaint."""
        return self.has_class("-wrong")

    async def complain(self, message: str, remedy: str | None = None) -> None:
        """Say what is wrong here."""
        if remedy and _FOR_PROGRAMS in remedy:
            remedy = "give its path here again, or leave the file out"
        said = f"✗ {message}\n→ {remedy}" if remedy else f"✗ {message}"
        self.add_class("-wrong")
        if there := self.query(".complaint"):
            there.first(Static).update(said)
        elif self.is_attached:
            await self.mount(Static(said, classes="complaint", markup=False))

    def be_content(self) -> None:
        """Take the complaint back."""
        self.remove_class("-wrong")

    def focus_input(self) -> None:
        """Put the cursor into the field."""
        self.control.focus_input()
        # Once the layout is new: what is said under the field is to be seen too.
        self.call_after_refresh(self.scroll_visible, animate=False)

    def value(self) -> Any:
        """Return what the field says; NOTHING where it says nothing.

        Raises:
            UsageError: the text cannot be read.
        """
        return read(self.field, self.entry, datetime.now(UTC))

    async def check(self, *, missing: bool = False) -> None:
        """Complain of a text that cannot be read, and if asked of one that is missing."""
        try:
            value = self.value()
        except UsageError as error:
            await self.complain(error.message, error.remedy)
            return
        self.be_content()
        if missing and self.field.required and value is NOTHING:
            await self.complain(f"{self.field.label.lower()} is missing", "every such job needs it")

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(Checkbox.Changed)
    @on(Select.Changed)
    def _was_edited(self, event: Message) -> None:
        event.stop()
        self.be_content()
        self.post_message(self.Edited(self))

    def on_descendant_blur(self, event: events.DescendantBlur) -> None:
        """Look at what was typed once the field is left."""
        del event
        self.call_after_refresh(self._check_if_left)

    async def _check_if_left(self) -> None:
        if self.is_attached and not self.has_focus_within and not self.is_wrong:
            await self.check()


def _alike(field: Field, one: Entry, other: Entry) -> bool:
    return one.kept == other.kept and _worth(field, one) == _worth(field, other)


def _worth(field: Field, entry: Entry) -> str:
    """Return what an entry says; a switch that was never touched stands as the daemon has it."""
    if field.control is Control.SWITCH:
        return entry.text or choice_text(field.default is True)
    return entry.text.strip()


def _keeping(label: str, sha256: str, origin: int | None) -> str:
    return f"keep {label} of job {origin}, {sha256[:_DIGITS]}…"
