"""A line of text that offers what may be meant.

The rule this module protects: looking for offers never holds up a key. They come from a thread, and
those that come for a text that has changed meanwhile are dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from tui.forms.offers import Offer, Source


class _Ghost(Suggester):
    """The first offer that goes on where the text ends."""

    def __init__(self, source: Source) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._source = source

    async def get_suggestion(self, value: str) -> str | None:
        offers = await asyncio.to_thread(self._source, value)
        return next((offer.text for offer in offers if offer.text.startswith(value)), None)


class Line(Input):
    """The input of a ``Completer``.

    The key that opens the list is bound here: an input has a binding of its own for it, which does
    nothing and would keep this one out of the footer.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "offers", "Suggestions", id="form.suggestions"),
    ]

    class Asked(Message):
        """Somebody wants to see what there is."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the list where there is one."""
        del parameters
        return self.suggester is not None if action == "offers" else True

    def action_offers(self) -> None:
        """Ask for the list."""
        self.post_message(self.Asked())


class Completer(Vertical):
    """An input with a list of offers under it, which opens on demand."""

    HELP = """\
## A field with suggestions

The first suggestion stands grey behind what you type: **→** takes it over. **↓** lists all that
fit; there **enter** takes one, **escape** closes the list, and typing goes on in the field. Paths
are paths of this machine; the files travel when the form is sent.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close the list", show=False, id="form.suggestions_close"),
    ]
    DEFAULT_CSS = """
    Completer { height: auto; }
    Completer > OptionList {
        height: auto; max-height: 7; border: none; padding: 0;
        text-wrap: nowrap; text-overflow: ellipsis;
        background: $panel; border-left: outer $accent;
    }
    """

    class Found(Message):
        """A thread has looked; ``enter``: go down into the list."""

        def __init__(self, text: str, offers: Sequence[Offer], *, enter: bool) -> None:
            super().__init__()
            self.text = text
            self.offers = offers
            self.enter = enter

    def __init__(self, source: Source | None, *, placeholder: str = "", text: str = "") -> None:
        super().__init__()
        self._source = source
        self._placeholder = placeholder
        self._text = text
        self._offers: Sequence[Offer] = ()
        self._list: OptionList | None = None

    def compose(self) -> ComposeResult:
        """Make the input and the closed list."""
        yield Line(
            self._text,
            placeholder=self._placeholder,
            suggester=_Ghost(self._source) if self._source else None,
            select_on_focus=False,
            compact=True,
        )

    @property
    def typed(self) -> str:
        """The text of the input."""
        return self.query_one(Input).value if self.is_attached and self.children else self._text

    @property
    def is_open(self) -> bool:
        """Whether the offers are listed."""
        return self._list is not None

    def focus_input(self) -> None:
        """Put the cursor into the input."""
        self.query_one(Input).focus(scroll_visible=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Close only what is open; else escape is for the form."""
        del parameters
        return self.is_open if action == "close" else True

    def on_line_asked(self, event: Line.Asked) -> None:
        """List the offers, or go down into the list."""
        event.stop()
        if self._list is not None and self._offers:
            self._enter(self._list)
        elif self._list is None:
            self._list = OptionList(compact=True, markup=False)
            self._list.can_focus = False  # so that tab goes to the next field
            self.mount(self._list)
            self._look(self.typed, enter=True)

    def action_close(self) -> None:
        """Close the list and go back to the text."""
        self.focus_input()
        self._close()

    def _close(self) -> None:
        if self._list is not None:
            self._list.remove()
            self._list = None
        self._offers = ()

    @work(thread=True, exclusive=True)
    def _look(self, text: str, *, enter: bool) -> None:
        if self._source is not None:
            self.post_message(self.Found(text, self._source(text), enter=enter))

    def on_completer_found(self, event: Found) -> None:
        """List what was found, unless the text has changed since."""
        event.stop()
        if event.text == self.typed and self._list is not None:
            self._offers = event.offers
            self._show(self._list, event.offers, enter=event.enter)

    def _show(self, listed: OptionList, offers: Sequence[Offer], *, enter: bool) -> None:
        listed.clear_options()
        listed.add_options([Option(_line(offer)) for offer in offers])
        if not offers:
            listed.add_option(Option(Text("nothing fits", style="dim italic"), disabled=True))
        elif enter:
            self._enter(listed)

    def _enter(self, listed: OptionList) -> None:
        listed.can_focus = True
        listed.focus()
        listed.highlighted = 0

    @on(OptionList.OptionSelected)
    def _take(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        field = self.query_one(Input)
        field.value = self._offers[event.option_index].text
        field.cursor_position = len(field.value)
        if field.value.endswith("/"):
            self._look(field.value, enter=True)
        else:
            self.action_close()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        if self._list is not None:
            self._look(event.value, enter=self._list.can_focus)

    def on_key(self, event: events.Key) -> None:
        """Go on typing in the input while the list has the focus."""
        if self._list is None or not self._list.has_focus:
            return
        field = self.query_one(Input)
        if event.character is not None and event.is_printable:
            self._leave(self._list)
            field.insert_text_at_cursor(event.character)
        elif event.key == "backspace":
            self._leave(self._list)
            field.action_delete_left()
        else:
            return
        event.stop()

    def _leave(self, listed: OptionList) -> None:
        self.focus_input()
        listed.can_focus = False

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Stay in the text once one is back there."""
        if self._list is not None and event.widget is not self._list:
            self._list.can_focus = False

    def on_descendant_blur(self) -> None:
        """Close the list when the focus has gone elsewhere."""
        self.call_after_refresh(self._close_if_left)

    def _close_if_left(self) -> None:
        if self.is_attached and not self.has_focus_within:
            self._close()


def _line(offer: Offer) -> Text:
    line = Text(offer.text, no_wrap=True, overflow="ellipsis")
    return line.append(f"  {offer.about}", style="dim") if offer.about else line
