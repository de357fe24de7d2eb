"""What ``studioq doctor`` finds: the value of one finding, and how a check becomes findings.

The rule this package protects: it works before anything is installed. Standard library only, parses
and runs on Python 3.8, and a check that raises becomes a finding and never a traceback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

OK = "ok"
NOTE = "note"
WARNING = "warning"
ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    ``status`` is ``ok``, ``note`` (worth knowing), ``warning`` (works, but badly or unsafely) or
    ``error`` (must be mended). ``remedy`` is a command or a sentence.
    """

    name: str
    status: str
    found: str
    remedy: str | None = None


def ok(name: str, found: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(name=name, status=OK, found=found)


def note(name: str, found: str, remedy: str | None = None) -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(name=name, status=NOTE, found=found, remedy=remedy)


def warning(name: str, found: str, remedy: str) -> Finding:
    """Return a finding that hinders, but does not stop studioq."""
    return Finding(name=name, status=WARNING, found=found, remedy=remedy)


def error(name: str, found: str, remedy: str) -> Finding:
    """Return a finding that must be mended."""
    return Finding(name=name, status=ERROR, found=found, remedy=remedy)


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield the findings of ``check``; what it raises becomes a last finding under ``name``."""
    try:
        yield from check()
    except Exception as problem:  # noqa: BLE001 - the doctor never crashes
        yield warning(
            name,
            f"could not be checked: {type(problem).__name__}: {problem}",
            "check it by hand, or run the doctor as the account that owns the files",
        )


def size(count: float) -> str:
    """Return a number of bytes as people write it, in powers of 1024."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
