"""Whether a repeated job made the same files.

The rule it protects: files that record times (plots, metrics) are compared and shown like all
others, but only what spec and seed determine decides whether the repetition succeeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.client.answers import Artifact, Comparison

_TIMED_KINDS = frozenset({"plot", "metrics"})


def compare(first: Sequence[Artifact], second: Sequence[Artifact]) -> list[Comparison]:
    """Return one line for each name that either job has, sorted by name."""
    one = {found["name"]: found for found in first}
    two = {found["name"]: found for found in second}
    return [_line(name, one.get(name), two.get(name)) for name in sorted(one | two)]


def _line(name: str, first: Artifact | None, second: Artifact | None) -> Comparison:
    either = first or second or {}
    hashes = [found["sha256"] if found else None for found in (first, second)]
    return {
        "name": name,
        "kind": either.get("kind", ""),
        "same": hashes[0] == hashes[1],
        "first": hashes[0],
        "second": hashes[1],
    }


def is_repeated(lines: Sequence[Comparison]) -> bool:
    """Return whether every artifact that the spec determines came out the same."""
    return all(line["same"] for line in lines if line["kind"] not in _TIMED_KINDS)
