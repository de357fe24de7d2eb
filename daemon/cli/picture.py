"""A picture shown in the terminal, where the terminal can show one.

The rule it protects: showing is a courtesy. The path is printed anyway by the caller, so whatever
goes wrong here is silence and never an error. Where the terminal has kitty's or sixel graphics the
picture is one of those, else half-cells of colour.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

_COLUMNS, _LINES = 64, 24
_SPARE_LINES = 3
_DUMB = frozenset({"", "dumb", "unknown"})


def show_picture(path: Path, stream: TextIO) -> bool:
    """Print the picture on ``stream`` if that is this terminal; say whether it was printed.

    Nothing is printed in a pipe, with ``NO_COLOR``, on a dumb terminal, or by a job of the
    shell's background, which must not ask the terminal what it can do.
    """
    # A terminal may answer anything, and a courtesy must not fail the command.
    with suppress(Exception):
        if _shows_pictures(stream):
            _print(path, stream)
            return True
    return False


def _shows_pictures(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in _DUMB:
        return False
    if not (stream.encoding or "").lower().replace("-", "").startswith("utf8"):
        return False
    # textual-image asks the terminal through these two, so all three have to be it.
    ends = (stream, sys.__stdin__, sys.__stdout__)
    if not all(end is not None and end.isatty() for end in ends):
        return False
    return os.tcgetpgrp(stream.fileno()) == os.getpgrp()


def _print(path: Path, stream: TextIO) -> None:
    # Its import asks the terminal; the warnings of a terminal that stays silent help nobody.
    logging.getLogger("textual_image").setLevel(logging.CRITICAL)
    from rich.console import Console
    from textual_image.renderable import Image

    console = Console(file=stream)
    lines = max(1, min(_LINES, console.size.height - _SPARE_LINES))
    picture = Image(path, width="auto", height="auto")
    console.print(picture, width=min(_COLUMNS, console.size.width), height=lines)
    stream.flush()
