"""The loss of a language model, and its mean over a set of batches.

The rule this module protects: every learned token counts once and padding never. (mlx-lm's own loss
also counts the first padding token after each row.)
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from typing import Any

import mlx.core as mx
from mlx import nn

from daemon.errors import NonFiniteError
from workers.language.batches import Batch


def token_loss(model: Any, tokens: mx.array, spans: mx.array) -> tuple[mx.array, mx.array]:
    """Return the mean cross-entropy in nats per learned token, and the number of those tokens.

    ``tokens`` (rows, width) and ``spans`` (rows, 2) are as in ``Batch``.
    """
    targets = tokens[:, 1:]
    places = mx.arange(1, tokens.shape[1])
    learned = mx.logical_and(places >= spans[:, 0:1], places < spans[:, 1:])
    losses = nn.losses.cross_entropy(model(tokens[:, :-1]), targets) * learned
    count = learned.sum()
    return losses.astype(mx.float32).sum() / count, count


def evaluate(model: nn.Module, batches: Iterable[Batch]) -> Generator[None, None, float]:
    """Return the mean loss per token over ``batches``; yields after each batch, for safe points.

    Leaves the model in training mode.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
    """
    total, tokens = 0.0, 0
    try:
        for batch in batches:
            model.eval()
            loss, count = token_loss(model, mx.array(batch.tokens), mx.array(batch.spans))
            numbers: Any = mx.stack([loss, count.astype(mx.float32)]).tolist()
            total += numbers[0] * numbers[1]
            tokens += int(numbers[1])
            yield
    finally:
        model.train()
    mean = total / tokens
    if not math.isfinite(mean):
        raise NonFiniteError(f"the loss of an evaluation became {mean}")
    return mean
