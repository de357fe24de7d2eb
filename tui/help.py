"""Every key there is, in one place.

The rule this module protects: the list is made from the bindings themselves, as they are mapped
now, so it cannot be out of date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Markdown, Static

_SYMBOLS = {
    "question_mark": "?",
    "slash": "/",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "plus": "+",
    "comma": ",",
    "full_stop": ".",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
}


@dataclass(frozen=True, kw_only=True)
class Key:
    """A binding as it is listed: its id (for the settings), its keys, what it does."""

    id: str
    keys: str
    does: str


def keys_of(owner: type[Any], keymap: Mapping[str, str]) -> Iterator[Key]:
    """Yield the bindings that a class has itself, with the keys that they are mapped to now."""
    for binding in owner.__dict__.get("BINDINGS", ()):
        whole = binding if isinstance(binding, Binding) else Binding(*binding)
        keys = keymap.get(whole.id or "", whole.key)
        yield Key(id=whole.id or "", keys=shown(keys), does=whole.description or whole.action)


def shown(keys: str) -> str:
    """Return keys as they stand on a keyboard: ``question_mark,f1`` is ``? f1``."""
    return " ".join(_SYMBOLS.get(key.strip(), key.strip()) for key in keys.split(",") if key)


class HelpScreen(ModalScreen[None]):
    """All keys of some classes, and what the focused part says of itself."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "dismiss", "Close", id="help.close"),
    ]

    def __init__(
        self, owners: Iterable[tuple[str, type[Any]]], keymap: Mapping[str, str], about: str = ""
    ) -> None:
        super().__init__()
        self._owners = tuple(owners)
        self._keymap = keymap
        self._about = about

    def compose(self) -> ComposeResult:
        """List the keys, owner by owner."""
        with VerticalScroll(id="help"):
            if self._about:
                yield Markdown(self._about.strip())
            for title, owner in self._owners:
                found = list(keys_of(owner, self._keymap))
                if found:
                    yield Static(title, classes="owner", markup=False)
                    yield Static(Text("\n").join(map(_line, found)), classes="keys")
            yield Static(
                'Keys are changed in tui.toml: [keys] jobs.sort = "ctrl+s"; `studioq tui --help` '
                "says where it is.",
                classes="owner",
                markup=False,
            )


def _line(key: Key) -> Text:
    line = Text(f"{key.keys:<22} {key.does:<26} ")
    return line.append(key.id, style="dim")
