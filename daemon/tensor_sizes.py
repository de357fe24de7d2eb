"""What a tensor's shape may be, whichever file declares it.

The rule this module protects: sizes are bounded before anything is computed with them. Products of
thousands of huge numbers take minutes, and a number of more than 4300 digits cannot be printed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

MOST_AXES = 8
MOST_SIZE = 2**48  # of an axis, of a whole tensor, and of a place in a file


def checked_shape(sizes: Sequence[Any]) -> tuple[int, ...]:
    """Return ``sizes`` as a shape.

    Raises:
        ValueError: there are too many, one is no size, or the tensor has too many elements.
        TypeError: they are no sequence.
    """
    if len(sizes) > MOST_AXES:
        raise ValueError(f"a tensor has {len(sizes)} axes; at most {MOST_AXES} are read")
    shape = tuple(checked_size(size) for size in sizes)
    if math.prod(shape) > MOST_SIZE:
        raise ValueError(f"a tensor has the shape {shape}; at most {MOST_SIZE} elements are read")
    return shape


def checked_size(value: Any) -> int:
    """Return ``value`` if it is a whole number from 0 to ``MOST_SIZE``.

    Raises:
        ValueError: it is not.
    """
    if type(value) is not int:
        raise ValueError(f"a {type(value).__name__} is no size")
    if not 0 <= value <= MOST_SIZE:
        shown = value if abs(value) < 2**64 else f"a number of {value.bit_length()} bits"
        raise ValueError(f"{shown} is no size; sizes are from 0 to {MOST_SIZE}")
    return value
