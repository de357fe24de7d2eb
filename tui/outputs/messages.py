"""What the threads of the outputs tab tell it, and what its parts tell each other.

The rule this module protects: news names what it is about, so that what is no longer wanted is
dropped by whoever hears of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual.message import Message

from tui.outputs.decode import Frame
from tui.outputs.files import Row
from tui.outputs.loading import Drawn, Page, Problem, Wish
from tui.outputs.stream import Piece

if TYPE_CHECKING:
    from daemon.client.answers import Artifact
    from daemon.client.download import Fetched
    from tui.outputs.saving import Order


@dataclass(frozen=True, kw_only=True)
class SheetWish:
    """Pictures of a page of the contact sheet, each to be drawn in ``frame``."""

    number: int
    rows: Sequence[Row]
    frame: Frame


@dataclass(kw_only=True)
class Listed(Message, bubble=False):
    """The files of a job."""

    number: int
    found: list[Artifact] | Problem


@dataclass(kw_only=True)
class Brought(Message, bubble=False):
    """What was wished for."""

    wish: Wish
    content: Drawn | Page | Problem


@dataclass(kw_only=True)
class Streamed(Message, bubble=False):
    """Text that a job has made, for the ``listener`` that asked; or why there is no more."""

    listener: object
    piece: Piece | Problem


@dataclass(kw_only=True)
class ThumbCame(Message, bubble=False):
    """A picture of the contact sheet."""

    wish: SheetWish
    row: Row
    content: Drawn | Problem


@dataclass(kw_only=True)
class PageDone(Message, bubble=False):
    """The thread that brings a page of the contact sheet has ended."""


@dataclass(kw_only=True)
class SheetWanted(Message):
    """The contact sheet wants the pictures of its page."""

    rows: Sequence[Row]
    frame: Frame


@dataclass(kw_only=True)
class SheetChosen(Message):
    """A picture of the contact sheet is to be shown."""

    row: Row


@dataclass(kw_only=True)
class SaveTold(Message, bubble=False):
    """How far the saving is."""

    text: str


@dataclass(kw_only=True)
class Saved(Message, bubble=False):
    """The saving has ended."""

    order: Order
    found: list[Fetched] | Problem


@dataclass(kw_only=True)
class ReadyOutside(Message, bubble=False):
    """A file lies ready for the program ``command``; ``here``: it takes this terminal."""

    command: list[str]
    here: bool
    path: Path | Problem
