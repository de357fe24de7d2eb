"""AdamW, clipping and a moving average over a network's vector, and the course of their rates.

The rule this module protects: rates follow from steps, and from the time that was allowed, alone.
They are computed on the host and passed to the compiled step as an array, so none is baked into it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

BETAS = (0.9, 0.99)
EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What decides the rates. ``steps`` and ``minutes``: whichever is spent first ends a stage."""

    learning_rate: float
    steps: int
    minutes: float | None = None
    warmup: int = 200
    final_share: float = 0.01
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.9995

    def spent(self, step: int, seconds: float) -> float:
        """Return the share of the stage that is over after ``step`` steps and ``seconds``."""
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, by_time))

    def at(self, step: int, seconds: float) -> list[float]:
        """Return the learning rate, Adam's two corrections and the average's decay for a step.

        ``step`` counts from 0. Linear warm-up, then half a cosine down to ``final_share``. The
        average begins as that of the steps so far, (1 + n) / (10 + n).
        """
        cosine = 0.5 * (1 + math.cos(math.pi * self.spent(step, seconds)))
        rate = self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)
        count = step + 1
        return [
            rate * min(1.0, count / max(1, self.warmup)),
            1 / (1 - BETAS[0] ** count),
            1 / (1 - BETAS[1] ** count),
            min(self.average, (1 + count) / (10 + count)),
        ]


@dataclass(frozen=True, kw_only=True)
class State:
    """Vectors of one length: weights, Adam's two moments, and the moving average of weights."""

    weights: mx.array
    first: mx.array
    second: mx.array
    average: mx.array

    @classmethod
    def begin(cls, weights: mx.array) -> State:
        """Return the state before the first step."""
        zeros = mx.zeros_like(weights)
        return cls(weights=weights, first=zeros, second=zeros, average=weights)

    def vectors(self) -> dict[str, mx.array]:
        """Return the vectors by name."""
        return {
            "weights": self.weights,
            "first": self.first,
            "second": self.second,
            "average": self.average,
        }


def advance(
    state: State, gradient: mx.array, rates: mx.array, decayed: mx.array, clip: float
) -> tuple[State, mx.array]:
    """Make one step of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2).

    ``gradient`` is scaled down to a norm of ``clip``. ``rates``: those of ``Rates.at``;
    ``decayed``: the weight decay of each number. Returns the new state and the gradient's norm.
    """
    rate, first_correction, second_correction, keep = rates[0], rates[1], rates[2], rates[3]
    norm = mx.sqrt(mx.sum(mx.square(gradient)))
    gradient = gradient * mx.minimum(1.0, clip / (norm + 1e-6))
    first = BETAS[0] * state.first + (1 - BETAS[0]) * gradient
    second = BETAS[1] * state.second + (1 - BETAS[1]) * mx.square(gradient)
    change = first * first_correction / (mx.sqrt(second * second_correction) + EPS)
    weights = state.weights - rate * (change + decayed * state.weights)
    average = keep * state.average + (1 - keep) * weights
    return State(weights=weights, first=first, second=second, average=average), norm
