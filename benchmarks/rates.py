"""Measures contenders in turn, several times each, and keeps every sample.

The rule this module protects: what is compared was measured side by side. In each round every
contender runs once, and the order changes from round to round. Imports neither MLX nor PyTorch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

Clock = Callable[[], float]


class Contender(Protocol):
    """A program that denoises batches; every call returns when the device is done."""

    name: str

    def prepare(self, batch: int) -> None:
        """Compile for batches of this size and do a few steps; begin to watch the memory."""

    def run(self, batch: int) -> None:
        """Do all steps of one batch."""

    def few(self, batch: int, steps: int) -> None:
        """Do so many steps of one batch and none beyond, for a profile."""

    def peak_bytes(self) -> int | None:
        """Return the most memory that ``prepare`` had in use, None where nobody counts it."""

    def release(self) -> None:
        """Give memory back that is no longer used."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One contender at one batch size.

    ``samples``: step-images per second of each run. ``failure``: why there are none.
    """

    name: str
    batch: int
    samples: tuple[float, ...] = ()
    warm_up_seconds: float = 0.0
    peak_bytes: int | None = None
    failure: str | None = None

    @property
    def rate(self) -> float | None:
        """The median of the samples."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def spread(self) -> float | None:
        """The distance of the farthest sample from the median, as a part of it."""
        if self.rate is None:
            return None
        return max(abs(sample - self.rate) for sample in self.samples) / self.rate

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was measured."""
        return {
            "name": self.name,
            "batch": self.batch,
            "step_images_per_second": self.rate,
            "samples": list(self.samples),
            "warm_up_seconds": self.warm_up_seconds,
            "peak_bytes": self.peak_bytes,
            "failure": self.failure,
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to measure: at least so many ``rounds`` and ``seconds`` for each contender."""

    steps: int
    rounds: int = 3
    seconds: float = 0.0


@dataclass(slots=True)
class _Lane:
    """What is known of a contender while it is measured."""

    contender: Contender
    samples: list[float] = field(default_factory=list)
    warm_up: float = 0.0
    peak: int | None = None
    failure: str | None = None

    def attempt(self, action: Callable[[], None], clock: Clock) -> float:
        """Return the seconds that ``action`` takes; what it raises ends the contender's part."""
        begun = clock()
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the table says what happened, the others go on
            self.failure = _described(error)
        return clock() - begun

    def cell(self, batch: int) -> Cell:
        return Cell(
            name=self.contender.name,
            batch=batch,
            samples=() if self.failure is not None else tuple(self.samples),
            warm_up_seconds=self.warm_up,
            peak_bytes=self.peak,
            failure=self.failure,
        )


def measure(contenders: Sequence[Contender], batch: int, plan: Plan, clock: Clock) -> list[Cell]:
    """Return one cell for each contender, in their order; all are left as prepared."""
    lanes = [_Lane(contender) for contender in contenders]
    for lane in lanes:
        lane.warm_up = lane.attempt(partial(lane.contender.prepare, batch), clock)
        lane.peak = lane.contender.peak_bytes()
    begun, done = clock(), 0
    while (alive := [lane for lane in lanes if lane.failure is None]) and (
        done < plan.rounds or clock() - begun < plan.seconds * len(alive)
    ):
        for lane in rotated(alive, done):
            taken = lane.attempt(partial(lane.contender.run, batch), clock)
            if lane.failure is None:
                lane.samples.append(batch * plan.steps / taken)
        done += 1
    return [lane.cell(batch) for lane in lanes]


def rotated(lanes: Sequence[_Lane], count: int) -> list[_Lane]:
    """Return the lanes with the first ``count`` of them moved to the end."""
    start = count % len(lanes)
    return [*lanes[start:], *lanes[:start]]


def _described(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
