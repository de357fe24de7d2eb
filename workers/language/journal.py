"""What a training has to tell: its running averages, its log lines, metrics and samples.

The rule this module protects: a metric event and the line in ``metrics.jsonl`` are the same
numbers, and a resumed training continues both where its checkpoint left them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from workers.events import Metric
from workers.files import LineFile
from workers.language.checkpoint import METRICS, SAMPLES
from workers.language.trainer import StepResult
from workers.own_memory import OwnMemory

# How much of the smoothed step time the latest step decides.
_LATEST = 0.1


@dataclass(kw_only=True)
class Window:
    """Sums over the steps since the last report; ``seconds`` is time spent in steps alone."""

    loss: float = 0.0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, result: StepResult, seconds: float) -> None:
        """Count one step."""
        self.loss += result.loss
        self.steps += 1
        self.tokens += result.tokens
        self.seconds += seconds

    def values(self) -> dict[str, float]:
        """Return mean loss, and iterations and learned tokens per second."""
        seconds = max(self.seconds, 1e-9)
        return {
            "train_loss": self.loss / self.steps,
            "it_per_sec": self.steps / seconds,
            "tokens_per_sec": self.tokens / seconds,
        }


class Journal:
    """Window, totals and the growing files of one attempt, with what a checkpoint keeps of them."""

    def __init__(
        self, folder: Path, memory: OwnMemory, history: Mapping[str, bytes] | None = None
    ) -> None:
        before = history or {}
        self._memory = memory
        self.window = Window()
        self.trained_tokens = 0
        self.evaluated_step = -1
        self._step_seconds: float | None = None
        self._metrics = LineFile(folder / METRICS, start=before.get(METRICS, b""))
        self._samples = LineFile(folder / SAMPLES, start=before.get(SAMPLES, b""))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside the files."""
        return {
            "window": asdict(self.window),
            "trained_tokens": self.trained_tokens,
            "evaluated_step": self.evaluated_step,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state()``."""
        self.window = Window(**state["window"])
        self.trained_tokens = state["trained_tokens"]
        self.evaluated_step = state["evaluated_step"]

    def history(self) -> dict[str, bytes]:
        """Return the content of the growing files, made durable."""
        self._metrics.sync()
        self._samples.sync()
        return {METRICS: self._metrics.content(), SAMPLES: self._samples.content()}

    def count(self, result: StepResult, seconds: float) -> None:
        """Count one step of ``seconds``."""
        self.window.add(result, seconds)
        self.trained_tokens += result.tokens
        before = seconds if self._step_seconds is None else self._step_seconds
        self._step_seconds = before + _LATEST * (seconds - before)

    def remaining(self, steps: int, other_seconds: float = 0.0) -> float | None:
        """Return the seconds for ``steps`` more steps and other work, once a step was measured."""
        return None if self._step_seconds is None else self._step_seconds * steps + other_seconds

    def report(self, step: int, learning_rate: float) -> tuple[str, Metric]:
        """Close the window: the log line and the metrics of the steps in it."""
        values = self.window.values()
        self.window = Window()
        line = (
            f"Iter {step}: Train loss {values['train_loss']:.3f}, "
            f"It/sec {values['it_per_sec']:.3f}, Tokens/sec {values['tokens_per_sec']:.3f}"
        )
        totals = {"learning_rate": learning_rate, "trained_tokens": self.trained_tokens}
        return line, self.metric(step, {**values, **totals})

    def metric(self, step: int, values: Mapping[str, float]) -> Metric:
        """Record ``values`` and the memory in use at ``step``."""
        measured = {**values, **self._held()}
        self._metrics.append(json.dumps({"iteration": step, **measured}, allow_nan=False))
        return Metric(step=step, values=measured)

    def _held(self) -> dict[str, float]:
        return {
            "active_memory_bytes": self._memory.active(),
            "peak_memory_bytes": self._memory.peak(),
            "cache_memory_bytes": mx.get_cache_memory(),
        }

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Record a sample generation."""
        row = {"iteration": step, "prompt": prompt, "text": text}
        self._samples.append(json.dumps(row, ensure_ascii=False))

    def rows(self) -> list[dict[str, float]]:
        """Return every line of ``metrics.jsonl``."""
        return [json.loads(line) for line in self._metrics.content().splitlines()]

    def close(self) -> None:
        """Close the files."""
        self._metrics.close()
        self._samples.close()


def perplexity(loss: float) -> float:
    """Return e to the loss, the perplexity per token; e to 700 where that would overflow."""
    return math.exp(min(loss, 700.0))
