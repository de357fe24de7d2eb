"""How counts are written in messages.

The rule it protects: one of a thing is a thing. Standard library only, for the thin client.
"""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return ``1 step`` or ``2 steps``; the noun has the plural with an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
