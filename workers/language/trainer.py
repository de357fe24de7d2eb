"""One training step, compiled, with all its state in plain sight.

The rule this module protects: parameters, optimizer, gathered gradients, random state and step
number are everything there is. Restored from a checkpoint they continue bit for bit; and since the
random state is private, other jobs in the same process change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_map, tree_map_with_path, tree_unflatten

from daemon.errors import ModelError
from workers.language.batches import Batch
from workers.language.evaluate import token_loss
from workers.memory import preserved_random_state

Arrays = dict[str, mx.array]
Key = tuple[int, int]

_OPTIMIZER, _GRADIENT = "optimizer.", "gradient."


@contextmanager
def random_state(key: Key) -> Iterator[list[Key]]:
    """Run the block with MLX's random state set to ``key``; the list ends as the state after it.

    The state that the process had before is put back. A key is a 64-bit seed's two halves.
    """
    states = [key]
    with preserved_random_state():
        # Assigning mx.random.state has no effect; a seed is stored as its two halves.
        mx.random.seed((key[0] << 32) | key[1])
        yield states
        state: Any = mx.random.state
        high, low = state[0].tolist()
        states[0] = (high, low)


def seed_key(seed: int) -> Key:
    """Return the random state that ``mx.random.seed(seed)`` sets."""
    return seed >> 32, seed & 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Mean loss per learned token of one batch, and how many tokens were learned."""

    loss: float
    tokens: int


class Trainer:
    """Trains what is unfrozen in ``model``, one batch per step.

    ``accumulation`` batches make one update, with the mean of their gradients; ``iters`` is the
    last step, after which the update takes what was gathered.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, iters: int, accumulation: int, key: Key
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.key = key
        self.steps = 0
        self._iters = iters
        self._accumulation = accumulation
        self._gathered: Any = None
        optimizer.init(model.trainable_parameters())
        model.train()
        self._step = self._compiled()

    @property
    def learning_rate(self) -> float:
        """The rate of the last update."""
        return float(self.optimizer.learning_rate.item())

    def step(self, batch: Batch) -> StepResult:
        """Learn from ``batch``; returns after the device has finished."""
        number = self.steps + 1
        gathered = (number - 1) % self._accumulation + 1
        update = gathered == self._accumulation or number == self._iters
        with random_state(self.key) as states:
            loss, tokens, self._gathered = self._step(
                mx.array(batch.tokens),
                mx.array(batch.spans),
                self._gathered,
                gathered if update else 0,
            )
            mx.eval(
                self.model.trainable_parameters(),
                self.optimizer.state,
                self._gathered,
                loss,
                tokens,
            )
        self.key = states[0]
        self.steps = number
        return StepResult(loss=loss.item(), tokens=tokens.item())

    def state(self) -> Arrays:
        """Return optimizer state and gathered gradients by name, for a checkpoint."""
        arrays = {_OPTIMIZER + name: array for name, array in tree_flatten(self.optimizer.state)}
        if self._gathered is not None:
            gathered = tree_flatten(self._gathered)
            arrays.update({_GRADIENT + name: array for name, array in gathered})
        return arrays

    def restore(self, arrays: Mapping[str, mx.array], *, steps: int, key: Key) -> None:
        """Continue from ``state()`` of another trainer of the same kind.

        Raises:
            ModelError: the arrays belong to another optimizer or other parameters.
        """
        mine = dict(tree_flatten(self.optimizer.state))
        saved = _without(_OPTIMIZER, arrays)
        if {n: a.shape for n, a in mine.items()} != {n: a.shape for n, a in saved.items()}:
            raise ModelError("the checkpoint's optimizer state does not fit this job")
        self.optimizer.state = tree_unflatten(list(saved.items()))
        self.optimizer.init(self.model.trainable_parameters())
        gathered = _without(_GRADIENT, arrays)
        parameters = self.model.trainable_parameters()
        self._gathered = (
            tree_map_with_path(lambda name, _: gathered[name], parameters) if gathered else None
        )
        self.steps = steps
        self.key = key
        self._step = self._compiled()

    def _compiled(self) -> Any:
        state = [self.model.state, self.optimizer.state, mx.random.state]
        return mx.compile(_learner(self.model, self.optimizer), inputs=state, outputs=state)


def _learner(model: nn.Module, optimizer: Optimizer) -> Callable[..., Any]:
    """Return the step as a function; it does not hold the trainer, so neither holds the other."""
    value_and_grad = nn.value_and_grad(model, token_loss)

    def learn(tokens: mx.array, spans: mx.array, gathered: Any, divisor: int) -> Any:
        """Add the gradient to ``gathered``; with a divisor, update with the mean and drop it."""
        (loss, count), gradient = value_and_grad(model, tokens, spans)
        if gathered is not None:
            gradient = tree_map(mx.add, gradient, gathered)
        if not divisor:
            return loss, count, gradient
        if divisor > 1:
            gradient = tree_map(lambda array: array / divisor, gradient)
        optimizer.update(model, gradient)
        return loss, count, None

    return learn


def _without(prefix: str, arrays: Mapping[str, mx.array]) -> Arrays:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
