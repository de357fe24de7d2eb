"""Where the list stands: beside what is shown, or above it.

The rule this module protects: a picture gets the larger part, and the list stays readable.
"""

from __future__ import annotations

from dataclasses import dataclass

_LIST_LEAST, _LIST_MOST = 28, 44
_BESIDE_FROM = 64
_LOW = 16


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """``beside``: the list is left of the output, ``size`` columns wide; else above it, in rows."""

    beside: bool
    size: int


def arrangement(width: int, height: int, rows: int) -> Arrangement:
    """Return where a list of ``rows`` lines goes in a place of so many cells."""
    if width >= _BESIDE_FROM and (width >= 2 * height or height < _LOW):
        return Arrangement(beside=True, size=min(_LIST_MOST, max(_LIST_LEAST, width // 3)))
    return Arrangement(beside=False, size=max(1, min(rows, height // 3)))
