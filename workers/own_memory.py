"""What of MLX's memory is an attempt's own: without the models that are kept for other jobs.

The rule this module protects: an attempt's peak holds its model, whether that had to be loaded or
was warm, and nothing that is kept for others; a cold start adds only what loading itself takes. MLX
has one peak for the whole process, so this module alone starts it anew; whoever wants a peak asks
here.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

import mlx.core as mx


class OwnMemory:
    """The memory of one attempt: what MLX holds beyond what is kept and used by no attempt.

    Models that the attempt borrows are its own from the moment it loads or borrows them. MLX counts
    for the process and not for an attempt: of attempts that take turns, each one's numbers hold
    what the others use beside it, their borrowed models included.
    """

    def __init__(self, book: MemoryBook) -> None:
        self._book = book
        self._peak = 0

    def active(self) -> int:
        """Return the bytes that it holds now."""
        return max(0, mx.get_active_memory() - self._book.foreign())

    def peak(self) -> int:
        """Return the most bytes that it has held since it began."""
        self._peak = max(self._peak, _process_peak() - self._book.foreign(), 0)
        return self._peak

    def end(self) -> None:
        """Count no further."""
        self._book.forget(self)


class MemoryBook:
    """Keeps the peaks of all live attempts. ``idle_bytes``: of kept models that nobody uses.

    Whoever changes what ``idle_bytes`` returns calls ``settle`` first: what was held until then is
    judged by what was idle until then.
    """

    def __init__(self, idle_bytes: Callable[[], int]) -> None:
        self._idle_bytes = idle_bytes
        self._live: WeakSet[OwnMemory] = WeakSet()
        self._rest = 0
        self._highest = 0

    def begin(self) -> OwnMemory:
        """Begin to count for an attempt.

        What MLX holds beside the kept models when nothing runs belongs to no attempt that follows.
        """
        if self._live:
            self.settle()
        else:
            self._highest = 0
            self._rest = mx.get_active_memory() - self._idle_bytes()
            mx.reset_peak_memory()
        own = OwnMemory(self)
        self._live.add(own)
        return own

    def settle(self) -> None:
        """Count each attempt's peak so far, and let MLX's begin anew."""
        if not self._live:
            return
        for own in self._live:
            own.peak()
        self._highest = self.highest()
        mx.reset_peak_memory()

    def forget(self, own: OwnMemory) -> None:
        """Count no further for an attempt."""
        self._live.discard(own)

    def foreign(self) -> int:
        """Return the bytes that are no attempt's."""
        return max(0, self._rest + self._idle_bytes())

    def highest(self) -> int:
        """Return the most bytes that the process held since attempts began to run."""
        return max(self._highest, _process_peak())


def _process_peak() -> int:
    """Return MLX's peak; right after a reset that is what is held, which MLX calls 0."""
    return int(max(mx.get_peak_memory(), mx.get_active_memory()))
