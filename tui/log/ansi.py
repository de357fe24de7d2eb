"""Turns what programs write to terminals into text that is safe to show, and its colours.

The rule this module protects: no control character of a log reaches the terminal. Colours and the
like become styles; every other escape sequence is dropped; what is left of control characters is
shown as a picture of itself.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.color import Color
from rich.style import Style

# From, to (in characters), and how it looks.
Span = tuple[int, int, Style]

_TAB = 8
_LONGEST_COLOUR = 5

# Control sequences (with their parameters and final letter), strings up to their end (titles,
# links), the shorter sequences, tabs; ECMA-48, 5.4 and 8.3.
_TOKEN = re.compile(
    r"(?:\x1b\[|\x9b)(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~])"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-Z\\^-~]"
    r"|(?P<tab>\t)"
)

_INKS = tuple(Color.from_ansi(number) for number in (0, 7, 15))

_SWITCHES = {
    1: ("bold", True),
    2: ("dim", True),
    3: ("italic", True),
    4: ("underline", True),
    7: ("reverse", True),
    9: ("strike", True),
    23: ("italic", None),
    24: ("underline", None),
    27: ("reverse", None),
    29: ("strike", None),
    39: ("color", None),
    49: ("bgcolor", None),
}


def clean(raw: str) -> tuple[str, tuple[Span, ...]]:
    """Return the text of a line without controls, and where it is styled."""
    if raw.isprintable():
        return raw, ()
    writer = _Writer()
    end = 0
    for token in _TOKEN.finditer(raw):
        writer.write(raw[end : token.start()])
        end = token.end()
        if token["tab"]:
            writer.tab()
        elif token["final"] == "m":
            writer.pen.apply(token["parameters"])
    writer.write(raw[end:])
    return writer.text, tuple(writer.spans)


class _Writer:
    """Collects text and spans."""

    def __init__(self) -> None:
        self.pen = _Pen()
        self.spans: list[Span] = []
        self._parts: list[str] = []
        self._length = 0
        self._cells = 0

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(self._parts)

    def write(self, raw: str) -> None:
        """Write with the pen as it is."""
        shown = raw if raw.isprintable() else "".join(map(_shown, raw))
        if not shown:
            return
        if style := self.pen.style():
            self.spans.append((self._length, self._length + len(shown), style))
        self._parts.append(shown)
        self._length += len(shown)
        self._cells += cell_len(shown)

    def tab(self) -> None:
        """Write blanks up to the next column of tabs."""
        self.write(" " * (_TAB - self._cells % _TAB))


class _Pen:
    """The style that is on, as ``ESC [ … m`` changes it."""

    def __init__(self) -> None:
        self._on: dict[str, object] = {}

    def style(self) -> Style | None:
        """Return the style, None where nothing is on."""
        return _style(tuple(sorted(self._on.items(), key=str))) if self._on else None

    def apply(self, parameters: str) -> None:
        """Obey one sequence; what is not known is passed over."""
        codes = [
            int(code) if code.isdecimal() and len(code) <= _LONGEST_COLOUR else 0
            for code in re.split("[;:]", parameters)
        ]
        while codes:
            self._obey(codes)

    def _obey(self, codes: list[int]) -> None:
        code = codes.pop(0)
        if code == 0:
            self._on.clear()
        elif code == 22:
            self._set("bold", None)
            self._set("dim", None)
        elif code in (38, 48):
            self._set("color" if code == 38 else "bgcolor", _colour(codes))
        elif code in _SWITCHES:
            self._set(*_SWITCHES[code])
        else:
            self._basic(code)

    def _basic(self, code: int) -> None:
        for first, offset in ((30, 0), (90, 8)):
            if first <= code < first + 8:
                self._set("color", Color.from_ansi(code - first + offset))
            if first + 10 <= code < first + 18:
                self._set("bgcolor", Color.from_ansi(code - first - 10 + offset))

    def _set(self, name: str, value: object) -> None:
        if value is None:
            self._on.pop(name, None)
        else:
            self._on[name] = value


def _colour(codes: list[int]) -> Color | None:
    """Take the colour that follows 38 or 48 from ``codes``: ``5;N`` or ``2;R;G;B``."""
    kind = codes.pop(0) if codes else 0
    if kind == 5 and codes:
        return Color.from_ansi(min(255, codes.pop(0)))
    if kind == 2 and len(codes) >= 3:
        red, green, blue = (min(255, codes.pop(0)) for _ in range(3))
        return Color.from_rgb(red, green, blue)
    codes.clear()
    return None


@lru_cache(maxsize=256)
def _style(items: tuple[tuple[str, object], ...]) -> Style:
    """Return the style; black and white alone would be invisible in one of the themes."""
    on = dict(items)
    if "bgcolor" not in on and on.get("color") in _INKS:
        del on["color"]
    return Style(**on)  # type: ignore[arg-type]


@lru_cache(maxsize=1024)
def _shown(character: str) -> str:
    """Return what stands for one character: itself, a blank, a picture of a control, or nothing."""
    category = unicodedata.category(character)
    if category == "Cc":
        code = ord(character)
        return chr(0x2400 + code) if code < 32 else "␡" if code == 127 else "\ufffd"
    if category in ("Zs", "Zl", "Zp"):
        return " "
    # What is invisible could turn the direction of a line round.
    return "" if category in ("Cf", "Cs") else character
