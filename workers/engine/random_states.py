"""MLX's one global random state, given to each attempt as if it were alone.

The rule this module protects: which numbers an attempt draws depends on its own seed only, not on
what else runs or ran in the engine. MLX ignores an assignment to ``mx.random.state``; seeding with
the two words of its key restores it. Switching costs microseconds and happens only when the turn
goes to another attempt.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx


def random_state() -> int:
    """Return the seed that leads on from MLX's present random state."""
    state: Any = mx.random.state
    high, low = (int(word) for word in state[0].tolist())
    return (high << 32) | low


class RandomStates:
    """The random states of the attempts that do not have the turn."""

    def __init__(self) -> None:
        self._turn: int | None = None
        self._saved: dict[int, int] = {}

    def begin(self, attempt: int, seed: int) -> None:
        """Give the turn to a new attempt, whose numbers follow from ``seed``."""
        self._saved[attempt] = seed
        self.enter(attempt)

    def enter(self, attempt: int) -> None:
        """Give the turn to ``attempt``."""
        if self._turn == attempt:
            return
        if self._turn is not None:
            self._saved[self._turn] = random_state()
        mx.random.seed(self._saved.pop(attempt))
        self._turn = attempt

    def end(self, attempt: int) -> None:
        """Forget an attempt that is over."""
        self._saved.pop(attempt, None)
        if self._turn == attempt:
            self._turn = None
