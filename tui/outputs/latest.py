"""Errands that replace each other: one runs, and of those asked meanwhile only the last is next.

The rule this module protects: holding a key down never piles up threads or requests. What runs is
let finish, what nobody wants any more is never begun.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Remembers the errand that runs and the last that was asked for. For one thread."""

    def __init__(self) -> None:
        self.running: T | None = None
        self._next: T | None = None

    def ask(self, errand: T) -> bool:
        """Return whether to begin it now; else it is the next, unless another takes its place."""
        if self.running is not None:
            self._next = errand
            return False
        self.running = errand
        return True

    def finish(self) -> T | None:
        """Return the errand to begin now that the running one is over."""
        self.running, self._next = self._next, None
        return self.running

    def forget(self) -> None:
        """Drop the next errand; the running one ends by itself."""
        self._next = None

    @property
    def newest(self) -> T | None:
        """The errand whose result is wanted."""
        return self._next if self._next is not None else self.running
