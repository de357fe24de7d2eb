"""What a job kind yields while it runs.

Every yield is also a safe point: the engine may cancel the job there, let another attempt run, or
ask it to stop with a checkpoint. An event therefore says only what has really happened, after
``mx.eval``. Standard library only: worker and engine both import this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class SafePoint:
    """Nothing to report; the job can be interrupted here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """``done`` of ``total`` units of work (iterations, prompts, images) are finished."""

    done: int
    total: int
    eta_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """Numbers measured at ``step``; names as in ``metrics.jsonl``. All values are finite."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """One or more lines for the job's log, without the final newline."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A piece of generated text, to be shown as it is made."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a later reader needs to repeat the run: hashes, package versions, the chip, counts."""

    facts: Mapping[str, str | int | float | bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A finished, synced file of the attempt's folder.

    ``path`` is relative to that folder and is also the name shown to the user; ``kind`` is one of
    adapter, checkpoint, state, model, image, plot, metrics, text, samples.
    """

    path: str
    kind: str
    step: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A complete checkpoint: from here the job can be resumed, and its files can be fetched.

    ``folder`` is relative to the attempt's folder. ``files`` are those that users may fetch from
    now on, as artifacts of ``kind`` (an adapter but not the optimizer's state: checkpoint; finished
    pictures: image), relative to the attempt's folder and synced; each once in an attempt.
    """

    step: int
    folder: str
    files: tuple[str, ...] = field(default=())
    kind: str = "checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """The job has obeyed a stop request: its last checkpoint is written, and it can be closed."""


Event = SafePoint | Progress | Metric | Log | Text | Facts | Artifact | Checkpoint | Stopped
