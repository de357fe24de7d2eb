"""What two pieces of work gain from running beside each other.

The rule this module protects: all four times of a row were taken in turn, in changing order, on the
same amounts. Imports no MLX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Clock = Callable[[], float]

# How long the side work takes by itself, as a part of the main work's time.
_SHARE = 0.5
_MOST = 200


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Fewest seconds: of each alone, one after the other, and together."""

    name: str
    amount: str
    main: float
    side: float
    after_each_other: float
    together: float

    @property
    def gained(self) -> float:
        """The part of the shorter that cost no time: 1 all of it, 0 none, below 0 they disturb."""
        return (self.main + self.side - self.together) / min(self.main, self.side)

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was measured."""
        return {
            "name": self.name,
            "amount": self.amount,
            "denoising_seconds": self.main,
            "alone_seconds": self.side,
            "one_after_the_other_seconds": self.after_each_other,
            "together_seconds": self.together,
            "gained": self.gained,
        }


def fastest_seconds(
    actions: Mapping[str, Callable[[], None]], rounds: int, clock: Clock
) -> dict[str, float]:
    """Return the fewest seconds of each action; each round begins with another one."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    names = list(actions)
    for number in range(rounds):
        start = number % len(names)
        for name in [*names[start:], *names[:start]]:
            begun = clock()
            actions[name]()
            taken[name].append(clock() - begun)
    return {name: min(seconds) for name, seconds in taken.items()}


def amount_for(main: float, one: float) -> int:
    """Return how often work of ``one`` second is done beside ``main`` seconds, within bounds."""
    return min(max(1, round(_SHARE * main / one)), _MOST) if one > 0 else 1


HEADER = (
    "| beside the denoising | amount | denoising s | alone s | one after the other s | together s "
    "| gained |\n|---|---|--:|--:|--:|--:|--:|"
)


def line(row: Overlap) -> str:
    """Return one row of the table, Markdown."""
    seconds: Sequence[float] = (row.main, row.side, row.after_each_other, row.together)
    numbers = " | ".join(f"{value:.3f}" for value in seconds)
    return f"| {row.name} | {row.amount} | {numbers} | {100 * row.gained:.0f} % |"
