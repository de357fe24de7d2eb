"""What the terminal can draw, asked once before the interface starts.

The rule this module protects: the terminal is asked only where it can answer, before Textual reads
its input, and never again. Wherever there is doubt pictures are half-cells of colour, which every
terminal shows.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

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
    cell: tuple[int, int] = (10, 20)


_known = Terminal()


def terminal() -> Terminal:
    """Return what ``prepare`` has found out; half-cells if it was not called."""
    return _known


def prepare(environ: Mapping[str, str] = os.environ) -> Terminal:
    """Ask the terminal whether it draws pictures. To be called once, before ``App.run``.

    It is not asked with ``NO_COLOR``, on a dumb terminal, in a pipe, or by a job of the shell's
    background. One that stays silent costs a fifth of a second.
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
    # The warnings of a terminal that stays silent help nobody.
    logging.getLogger("textual_image").setLevel(logging.CRITICAL)
    from textual_image import renderable  # its import asks
    from textual_image._terminal import get_cell_size

    drawings = {renderable.TGPImage: Drawing.KITTY, renderable.SixelImage: Drawing.SIXEL}
    width, height = get_cell_size()
    drawing = drawings.get(renderable.Image, Drawing.HALF_CELLS)
    return Terminal(drawing=drawing, cell=(max(1, width), max(1, height)))
