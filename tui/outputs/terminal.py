"""What the terminal can draw, asked once before the interface starts.

The rule this module protects: the terminal is asked only where it can answer, before Textual reads
its input, and never again. Wherever there is doubt pictures are half-cells of colour, which every
terminal shows.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import select
import struct
import sys
import termios
import time
import tty
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

# Seconds for a terminal that answers nothing, as hardly one does.
PATIENCE = 0.2

# Whether a picture of one pixel would be taken by kitty's protocol; then, the primary attributes.
_QUESTIONS = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c"
_ATTRIBUTES = re.compile(r"\x1b\[\?([0-9;]*)c")

_USUAL_CELL = (10, 20)
_DUMB = frozenset({"", "dumb", "unknown"})


class Drawing(Enum):
    """How pictures get onto the screen."""

    HALF_CELLS = auto()
    KITTY = auto()
    SIXEL = auto()


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """How this terminal draws; ``cell`` is a cell's width and height in pixels."""

    drawing: Drawing = Drawing.HALF_CELLS
    cell: tuple[int, int] = _USUAL_CELL


_known = Terminal()


def terminal() -> Terminal:
    """Return what ``prepare`` has found out; half-cells if it was not called."""
    return _known


def prepare(environ: Mapping[str, str] = os.environ) -> Terminal:
    """Ask the terminal whether it draws pictures. To be called once, before ``App.run``.

    It is not asked with ``NO_COLOR``, on a dumb terminal, in a pipe, or by a job of the shell's
    background. textual-image, 0.1 s to import, is imported only where it will draw.
    """
    global _known  # noqa: PLW0603 - the terminal is one for the process, and asked once
    _known = Terminal()
    if may_ask(environ) and _is_ours():
        # A terminal may answer anything, and pictures are a courtesy.
        with suppress(Exception):
            _known = _ask()
    return _known


def may_ask(environ: Mapping[str, str]) -> bool:
    """Return whether the environment speaks of a terminal that draws in colour."""
    return not environ.get("NO_COLOR") and environ.get("TERM", "") not in _DUMB


def _is_ours() -> bool:
    """Return whether both ends are the terminal, and this process is in its foreground."""
    ends = (sys.__stdin__, sys.__stdout__)
    if not all(end is not None and end.isatty() for end in ends):
        return False
    return os.tcgetpgrp(sys.__stdin__.fileno()) == os.getpgrp()  # type: ignore[union-attr]


def _ask() -> Terminal:
    drawing = drawing_of(ask(sys.__stdin__.fileno(), sys.__stdout__.fileno()))  # type: ignore[union-attr]
    if drawing is Drawing.HALF_CELLS:
        return Terminal(cell=cell_size(sys.__stdout__.fileno()))  # type: ignore[union-attr]
    # Its import asks again, and this terminal answers; its warnings help nobody.
    logging.getLogger("textual_image").setLevel(logging.CRITICAL)
    from textual_image import widget  # noqa: F401
    from textual_image._terminal import get_cell_size

    width, height = get_cell_size()
    return Terminal(drawing=drawing, cell=(max(1, width), max(1, height)))


def cell_size(writes: int) -> tuple[int, int]:
    """Return a cell's width and height in pixels, as far as the terminal's driver knows them."""
    answer = fcntl.ioctl(writes, termios.TIOCGWINSZ, bytes(8))
    rows, columns, width, height = struct.unpack("HHHH", answer)
    if not (rows and columns and width >= columns and height >= rows):
        return _USUAL_CELL
    return width // columns, height // rows


def ask(reads: int, writes: int, *, patience: float = PATIENCE) -> str:
    """Return what the terminal answers to both questions, as far as it does in ``patience``.

    The second one, for its attributes, every terminal answers; so nobody waits for an answer to the
    first that will not come.
    """
    before = termios.tcgetattr(reads)
    tty.setcbreak(reads, termios.TCSANOW)
    try:
        os.write(writes, _QUESTIONS)
        return _read(reads, time.monotonic() + patience)
    finally:
        termios.tcsetattr(reads, termios.TCSANOW, before)


def _read(reads: int, deadline: float) -> str:
    answer = ""
    while not _ATTRIBUTES.search(answer):
        ready, _, _ = select.select([reads], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(reads, 1) if ready else b""
        if not data:
            break
        answer += data.decode("latin-1")
    return answer


def drawing_of(answer: str) -> Drawing:
    """Return how a terminal that answers so draws.

    Sixel comes first, as in textual-image: some terminals claim kitty's protocol without the
    placeholders that are needed here, and kitty itself does not claim sixel.
    """
    attributes = _ATTRIBUTES.search(answer)
    if attributes and "4" in attributes[1].split(";"):
        return Drawing.SIXEL
    return Drawing.KITTY if ";OK\x1b\\" in answer else Drawing.HALF_CELLS
