"""Turning what the system raises into errors that a user can act on.

The rule this module protects: a full disk and a full device are told apart from bugs, wherever in a
job they show. Imports no MLX.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import DiskFullError, OutOfMemoryError

# The words of MLX's allocators: CPU and Metal "[malloc]", Metal command buffers, CUDA.
_NO_MEMORY = re.compile(
    r"unable to allocate|attempting to allocate|insufficient memory|out of ?memory|bad_alloc",
    re.IGNORECASE,
)
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether ``error`` is an allocator's refusal."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None


@contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Raise an allocator's refusal as ``OutOfMemoryError`` that says what was being done."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory while {doing}: {_first_line(error)}",
            remedy="use a smaller or quantised model, a smaller batch, or shorter texts",
        ) from None


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise a full disk or a passed quota as ``DiskFullError`` that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise DiskFullError(
            f"the disk is full: {path.name} could not be written to {path.parent}",
            remedy="free space there, then studioq retry N",
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
