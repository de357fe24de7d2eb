"""The size of a picture, for the daemon and the engine.

The rule it protects: width comes first, as Pillow and people write it; arrays have it the other way
round. Standard library only: benchmarks import it without the daemon's packages.
"""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"
