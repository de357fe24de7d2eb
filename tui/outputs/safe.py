"""Text that other people and models have written, made harmless for a terminal.

The rule this module protects: no control character of an artifact reaches the terminal. An escape
sequence could rewrite the screen or the window's title, a bidirectional control the order of what
is read. Spaces of all scripts, joiners and combining marks stay: they are text.
"""

from __future__ import annotations

import re

from rich.cells import cell_len, set_cell_size

# C0 without tab and line end, DEL and C1, line and paragraph separators, the controls of
# direction, interlinear annotations, surrogates, tags, and what is no character.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
_TAB = "    "


def safe_text(text: str) -> str:
    """Return text whose control characters are shown as escapes; tabs become spaces."""
    text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(lambda found: repr(found[0])[1:-1], text).replace("\t", _TAB)


def one_line(text: str) -> str:
    """Return text, a name mostly, as one safe line."""
    return safe_text(text.replace("\n", " "))


def shortened(text: str, width: int) -> str:
    """Return one line of at most ``width`` cells; of a longer one the middle is left out."""
    if cell_len(text) <= width:
        return text
    if width < 3:
        return set_cell_size(text, max(0, width))
    head = (width - 1) // 2
    tail = width - 1 - head
    end = text
    while cell_len(end) > tail:
        end = end[1:]
    return f"{set_cell_size(text, head)}…{end}"
