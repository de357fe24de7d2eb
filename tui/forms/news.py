"""What the threads of a form tell it.

The rule this module protects: a thread only tells. It touches no widget, and what it tells after
the form has gone is dropped by Textual.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.message import Message

from daemon.errors import StudioqError
from tui.forms.material import Material
from tui.forms.offers import Known


class Loaded(Message):
    """The daemon has told what the form is made of."""

    def __init__(self, material: Material) -> None:
        super().__init__()
        self.material = material


class Learned(Message):
    """The daemon has told what the fields can offer."""

    def __init__(self, known: Known) -> None:
        super().__init__()
        self.known = known


class Doing(Message):
    """What the sending of the job is at."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what


class Failed(Message):
    """The daemon, or a file, has said no."""

    def __init__(self, error: StudioqError) -> None:
        super().__init__()
        self.error = error


class Queued(Message):
    """The job is there; ``notes`` are the daemon's sentences on it."""

    def __init__(self, number: int, notes: Sequence[str]) -> None:
        super().__init__()
        self.number = number
        self.notes = notes
