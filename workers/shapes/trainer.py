"""The loop of a stage: steps, rates, log and checkpoints.

The rule this module protects: a stage that is stopped and started again goes on as if it had not
been (exactly so where steps alone, and not minutes, decide its end).

Speed: a step is one compiled function of the network's vector (see ``flat``), and the host is two
steps ahead of the device, so that neither waits for the other.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from daemon.errors import NonFiniteError
from workers.files import write_json
from workers.memory import device_name, on_gpu
from workers.shapes.checkpoint import Progress, read_checkpoint, write_checkpoint
from workers.shapes.flat import Layout
from workers.shapes.objectives import Objective
from workers.shapes.optimizer import Rates, State, advance

LOG, OPTIONS = "log.jsonl", "options.json"
_AHEAD = 2

Step = Callable[..., tuple[list[mx.array], mx.array]]
Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a stage runs. ``precision`` is that of the network; the optimizer's is float32."""

    rates: Rates
    batch: int
    seed: int = 0
    precision: str = "float32"
    log_every: int = 100
    save_minutes: float = 2.0

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a checkpoint to be gone on from."""
        return {"batch": self.batch, "seed": self.seed, "precision": self.precision}


@dataclass(kw_only=True)
class _Window:
    """Losses and norms since the last line of the log."""

    started: float
    values: list[mx.array] = field(default_factory=list)

    def close(self, now: float) -> tuple[float, float, float]:
        """Return mean loss, mean norm and steps per second, and begin anew."""
        mean = np.array(mx.stack(self.values)).mean(axis=0)
        speed = len(self.values) / max(now - self.started, 1e-9)
        self.started, self.values = now, []
        return float(mean[0]), float(mean[1]), speed


def train(
    objective: Objective, options: Options, folder: Path, clock: Clock = time.monotonic
) -> State:
    """Train to the end of the stage, beginning with the checkpoint in ``folder`` if there is one.

    Raises:
        NonFiniteError: the loss became NaN or infinite.
        ModelError: the checkpoint is of other options or damaged.
    """
    layout = Layout(objective.module)
    folder.mkdir(parents=True, exist_ok=True)
    saved = read_checkpoint(folder, layout, options.identity())
    facts = {"device": device_name(), "pool": len(objective.data[0])}
    write_json(folder / OPTIONS, {**asdict(options), **facts})
    state, progress = saved or (State.begin(layout.of(objective.module)), Progress())
    return _Loop(objective, options, folder, layout, clock).run(state, progress)


class _Loop:
    def __init__(
        self, objective: Objective, options: Options, folder: Path, layout: Layout, clock: Clock
    ) -> None:
        self._objective = objective
        self._options = options
        self._folder = folder
        self._layout = layout
        self._clock = clock
        self._data = objective.data
        self._step = make_step(objective, layout, options)
        self._pending = deque[mx.array]()
        self._saved_at = 0.0

    def run(self, state: State, progress: Progress) -> State:
        """Make steps until steps or minutes are spent; return the last state."""
        self._pending.clear()
        begun = self._saved_at = self._clock()
        window, before = _Window(started=begun), progress.seconds
        saved = progress
        while self._options.rates.spent(progress.step, before + self._clock() - begun) < 1:
            state, values = self._advance(state, progress.step, before + self._clock() - begun)
            window.values.append(values)
            self._wait(values)
            seconds = before + self._clock() - begun
            progress = Progress(step=progress.step + 1, seconds=seconds)
            if progress.step % self._options.log_every == 0:
                self._report(progress, window)
            if self._clock() - self._saved_at > 60 * self._options.save_minutes:
                self._save(state, progress)
                saved = progress
        if window.values:
            self._report(progress, window)
        if saved is not progress:
            self._save(state, progress)
        return state

    def _wait(self, values: mx.array) -> None:
        """Wait until no more than the steps that the host may be ahead are unfinished."""
        self._pending.append(values)
        if len(self._pending) > _AHEAD:
            mx.eval(self._pending.popleft())

    def _advance(self, state: State, step: int, seconds: float) -> tuple[State, mx.array]:
        """Start one step on the device."""
        options = self._options
        generator = np.random.Generator(np.random.PCG64([options.seed, step]))
        choices = mx.array(self._objective.draw(generator, options.batch))
        key = mx.array(np.array([options.seed, step], dtype=np.uint32))
        rates = mx.array(options.rates.at(step, seconds))
        vectors, values = self._step(
            list(state.vectors().values()), self._data, choices, key, rates
        )
        mx.async_eval(vectors, values)  # type: ignore[no-untyped-call]
        return _state(vectors), values

    def _report(self, progress: Progress, window: _Window) -> None:
        loss, norm, speed = window.close(self._clock())
        rate = self._options.rates.at(max(0, progress.step - 1), progress.seconds)[0]
        line = {
            **asdict(progress),
            "loss": loss,
            "norm": norm,
            "learning_rate": rate,
            "steps_per_second": speed,
            "peak_memory": mx.get_peak_memory(),
        }
        if not math.isfinite(loss):
            raise _not_finite(f"the loss became {loss} by step {progress.step}")
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        say(f"step {progress.step} loss {loss:.5f} norm {norm:.3f} rate {rate:.2e} {speed:.2f}/s")

    def _save(self, state: State, progress: Progress) -> None:
        if not mx.isfinite(state.weights).all():
            raise _not_finite(f"the weights are not finite after step {progress.step}")
        write_checkpoint(self._folder, self._layout, state, progress, self._options.identity())
        self._saved_at = self._clock()
        say(f"checkpoint of step {progress.step} after {progress.seconds:.0f} s")


def make_step(objective: Objective, layout: Layout, options: Options) -> Step:
    """Return the step as a function of vectors, data, choices, key and rates.

    The network computes with the weights in the options' precision, cast as one vector; gradients
    come back as one vector, and are float32 from there on.
    """
    dtype: mx.Dtype = getattr(mx, options.precision)
    decayed = options.rates.weight_decay * layout.decayed()

    def step(
        vectors: list[mx.array],
        data: list[mx.array],
        choices: mx.array,
        key: mx.array,
        rates: mx.array,
    ) -> tuple[list[mx.array], mx.array]:
        state = _state(vectors)

        def loss(leaves: list[mx.array]) -> mx.array:
            objective.module.update(layout.tree(leaves))
            return objective.loss(data, choices, key)

        value, gradients = mx.value_and_grad(loss)(layout.split(state.weights.astype(dtype)))
        gradient = layout.join(gradients).astype(mx.float32)
        state, norm = advance(state, gradient, rates, decayed, options.rates.clip)
        return list(state.vectors().values()), mx.stack([value, norm])

    # On the CPU compilation runs a C++ compiler for minutes and gains nothing.
    return mx.compile(step) if on_gpu() else step


def _not_finite(what: str) -> NonFiniteError:
    return NonFiniteError(what, remedy="go on from the last checkpoint with a lower learning rate")


def _state(vectors: list[mx.array]) -> State:
    weights, first, second, average = vectors
    return State(weights=weights, first=first, second=second, average=average)


def say(text: str) -> None:
    """Tell whoever runs the program."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
