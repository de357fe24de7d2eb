"""Following the text that a job generates, in a thread that can be told to stop.

The rule this module protects: every wait is short, so that nothing is kept waiting by a thread that
is no longer wanted; and a text that a new attempt begins anew is shown anew.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.client.follow import Part
from tui.outputs.safe import safe_text
from tui.outputs.wrapping import MOST_CHARACTERS

if TYPE_CHECKING:
    from daemon.client import Client

# Seconds of one wait at the end of the text; the daemon answers sooner if there is more.
WAIT = 0.5

Read = Callable[[int], Part]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Text that came; ``anew`` if it begins from the start, ``ended`` with the job."""

    text: str
    anew: bool
    ended: bool


def reader(client: Client, number: int) -> Read:
    """Return what reads the text of a job from an offset on, waiting for more."""
    return lambda offset: client.read_text(number, offset, WAIT)


def pieces(read: Read, wanted: Callable[[], bool]) -> Iterator[Piece]:
    """Yield a job's text from its beginning as it is made, until it ends or nobody wants it."""
    decoder = _Decoder()
    offset, anew = 0, True
    while wanted():
        part = read(offset)
        if part.offset - len(part.data) != offset:
            decoder, anew = _Decoder(), True
        offset = part.offset
        ended = part.ended and not part.data
        text = decoder.decode(part.data, final=ended)
        if text or ended:
            yield Piece(text=text[-MOST_CHARACTERS:], anew=anew, ended=ended)
            anew = False
        if ended:
            return


class _Decoder:
    """Makes harmless text of bytes that come in parts; a line end may be cut in two."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def decode(self, data: bytes, *, final: bool) -> str:
        """Return the text as far as it is certain."""
        text = self._held + self._decoder.decode(data, final=final)
        self._held = "\r" if text.endswith("\r") and not final else ""
        return safe_text(text.removesuffix("\r") if self._held else text)
