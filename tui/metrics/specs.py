"""In what two jobs' specs differ.

The rule this module protects: what is equal is left out, so that a short table answers why two
curves part; and nothing that a user wrote is obeyed by the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tui.metrics.figures import figure

LONGEST = 48
_HASH_DIGITS = 8
_ABSENT = "-"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field, by its path, and its two values as text."""

    field: str
    this: str
    other: str


def differences(this: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    """Return the fields that differ, in the order of this job's spec."""
    here, there = dict(_fields(this)), dict(_fields(other))
    return [
        Difference(field=field, this=_text(here, field), other=_text(there, field))
        for field in dict.fromkeys([*here, *there])
        if here.get(field) != there.get(field)
    ]


def _fields(spec: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a spec's fields by path; a file is one field, its name does not count without hash."""
    for name, value in spec.items():
        inner = f"{path}{name}"
        if isinstance(value, Mapping) and "sha256" not in value:
            yield from _fields(value, f"{inner}.")
        else:
            yield inner, value


def _text(fields: Mapping[str, Any], field: str) -> str:
    if fields.get(field) is None:
        return _ABSENT
    return cut(_written(fields[field]), LONGEST)


def _written(value: Any) -> str:
    match value:
        case {"name": name, "sha256": digest}:
            return f"{name} ({str(digest)[:_HASH_DIGITS]})"
        case list():
            return ", ".join(_written(item) for item in value)
        case Mapping():
            return ", ".join(f"{name} {_written(item)}" for name, item in value.items())
        case bool():
            return "yes" if value else "no"
        case float():
            return figure(value)
        case _:
            return str(value)


def cut(text: str, longest: int) -> str:
    """Return text in one line of at most so many characters; control characters are shown."""
    line = "".join(char if char.isprintable() else " " for char in text[: 4 * longest])
    line = " ".join(line.split())
    return line if len(line) <= longest and len(text) <= 4 * longest else line[: longest - 1] + "…"
