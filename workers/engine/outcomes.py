"""How an attempt ended: what was raised, turned into the ledger's word and the user's message.

The rule this module protects: a user reads one sentence, and the traceback goes to the engine's
log alone, for it may show other people's paths. Imports no MLX.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from daemon.errors import JobError, OutOfMemoryError, StudioqError
from workers.failures import disk_errors, is_out_of_memory

_MOST_SHOWN = 300


class End(StrEnum):
    """Ends that the engine can tell, as ``daemon.ledger.states.AttemptState`` names them.

    Repeated here because the engine does without SQLAlchemy; a test compares the two.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """An end, and ``StudioqError.to_dict()`` if it was a failure."""

    end: End
    error: Mapping[str, Any] | None = None


def failure(error: BaseException, folder: Path) -> Outcome:
    """Return the outcome of an attempt that raised ``error`` and was writing into ``folder``."""
    known = _known(error, folder)
    if isinstance(known, OutOfMemoryError):
        return Outcome(end=End.OUT_OF_MEMORY, error=known.to_dict())
    if known is not None:
        return Outcome(end=End.FAILED, error=known.to_dict())
    return Outcome(end=End.FAILED, error=_internal(error))


def _known(error: BaseException, folder: Path) -> StudioqError | None:
    """Return the error as one of ours, None if nobody foresaw it."""
    if isinstance(error, StudioqError):
        return error
    log_traceback(error)
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"the device's memory ran out: {_one_line(error)}",
            remedy="use a smaller batch, shorter sequences, or a smaller or quantised model",
        )
    if isinstance(error, OSError):
        return _full_disk(error, folder)
    return None


def _full_disk(error: OSError, folder: Path) -> StudioqError | None:
    path = Path(error.filename) if isinstance(error.filename, str) else folder
    try:
        with disk_errors(path):
            raise error
    except StudioqError as known:
        return known
    except OSError:
        return None


def _internal(error: BaseException) -> dict[str, Any]:
    unforeseen = JobError(
        _one_line(error),
        remedy="this was not foreseen; an admin finds the details in the engine's log",
    )
    return {**unforeseen.to_dict(), "code": "internal"}


def log_traceback(error: BaseException) -> None:
    """Write the traceback to the engine's log, which only admins can read."""
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text[:_MOST_SHOWN]
