"""Optimizers and learning rates, as the spec names them.

The rule this module protects: the learning rate that the spec says is the one that is used, from
the first update to the last. So no schedule begins or ends at zero, and Adafactor does not put a
rate of its own in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from daemon.specs import TrainSpec

Schedule = Callable[[mx.array], mx.array]


def updates(spec: TrainSpec) -> int:
    """Return how many optimizer updates the training makes; the last may gather fewer batches."""
    return math.ceil(spec.iters / spec.grad_accumulation)


def learning_rate(spec: TrainSpec) -> float | Schedule:
    """Return the constant rate, or a function of the number of updates already made.

    During ``warmup`` iterations the rate rises by equal steps to its peak; then it stays, or falls
    to the edge of zero at the end, by a straight line or half a cosine.
    """
    warmup = math.ceil(spec.warmup / spec.grad_accumulation)
    if spec.lr_schedule == "constant" and not warmup:
        return spec.learning_rate
    rest = max(1, updates(spec) - warmup)
    decay = _DECAYS[spec.lr_schedule]

    def schedule(step: mx.array) -> mx.array:
        done = step.astype(mx.float32)
        rising = (done + 1) / max(1, warmup)
        falling = decay(mx.clip((done - warmup) / rest, 0.0, 1.0))
        return spec.learning_rate * mx.where(done < warmup, rising, falling)

    return schedule


def build_optimizer(spec: TrainSpec) -> optim.Optimizer:
    """Return the spec's optimizer with mlx-lm's settings.

    Except Adafactor: its own relative step would ignore the given rate, and its scaling by the
    parameter's size would divide the rate of LoRA's zero-initialised matrix by a thousand.
    """
    rate: Any = learning_rate(spec)
    if spec.optimizer == "adafactor":
        return optim.Adafactor(rate, relative_step=False, scale_parameter=False)
    return {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}[spec.optimizer](rate)


def _constant(fraction: mx.array) -> mx.array:
    return mx.ones_like(fraction)


def _linear(fraction: mx.array) -> mx.array:
    return 1.0 - fraction


def _cosine(fraction: mx.array) -> mx.array:
    return 0.5 * (1.0 + mx.cos(math.pi * fraction))


_DECAYS: dict[str, Callable[[mx.array], mx.array]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
}
