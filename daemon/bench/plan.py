"""Which jobs a benchmark queues: their options, how often, and the unmeasured one before them.

The rule this module protects: the work is the tutorial's (rank 8 on q and v of the last 16 layers,
batch 4; one prompt at a time; DDIM with guidance), and every option that decides speed is written
out, so that a changed default does not change what is compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from daemon import demo_rows

TRAIN_ROWS = 256

_SEED = 7
_TRAINING: Mapping[str, Any] = {
    "batch_size": 4,
    "learning_rate": 1e-5,
    "num_layers": 16,
    "rank": 8,
    "scale": 2.0,
    "keys": ["q_proj", "v_proj"],
    "seed": _SEED,
}
# Counting has no natural end: language models, chat or not, go on with it for as long as they may.
_PROMPT = " ".join(str(number) for number in range(1, 21))
_INFERENCE: Mapping[str, Any] = {"prompt": _PROMPT, "raw": True, "temp": 0.0, "seed": _SEED}
_DIFFUSION: Mapping[str, Any] = {
    "prompt": "a red circle left of a blue square",
    "sampler": "ddim",
    "cfg": 7.5,
    "preview_every": 0,
    "seed": _SEED,
}

_WARM_ITERATIONS, _WARM_TOKENS, _WARM_STEPS = 2, 4, 2


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much each job does. ``report``: iterations to a report; the first report is left out."""

    iterations: int = 40
    report: int = 5
    tokens: int = 128
    steps: int = 25
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)


FULL = Size()
QUICK = Size(iterations=4, report=2, tokens=16, steps=4, batches=(1, 2))


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A job to be queued."""

    kind: str
    name: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a benchmark shall measure, with which models, how much and how often."""

    tables: tuple[str, ...]
    model: str
    image_model: str
    size: Size
    repeats: int

    def model_of(self, table: str) -> str:
        """Return the model that a table is about."""
        return self.image_model if table == "diffuse" else self.model

    def settings(self, table: str) -> dict[str, Any]:
        """Return the options that decide the speed of a table's jobs."""
        if table == "train":
            return {**_TRAINING, "iters": self.size.iterations}
        if table == "infer":
            return {"max_tokens": self.size.tokens}
        return {"sampler": "ddim", "cfg": _DIFFUSION["cfg"], "steps": self.size.steps}

    def warm_up(self, table: str, data: Any, batch: int = 1) -> Planned:
        """Return the short job that loads the model and compiles; ``data``: a training's."""
        less = {
            "train": {"iters": _WARM_ITERATIONS},
            "infer": {"max_tokens": _WARM_TOKENS},
            "diffuse": {"steps": min(_WARM_STEPS, self.size.steps)},
        }[table]
        return self._job(table, data, batch, "warm-up", less)

    def measured(self, table: str, data: Any, batch: int = 1) -> list[Planned]:
        """Return the jobs that are measured, one for each repeat."""
        names = [f"{index + 1} of {self.repeats}" for index in range(self.repeats)]
        return [self._job(table, data, batch, name, {}) for name in names]

    def _job(
        self, table: str, data: Any, batch: int, name: str, less: Mapping[str, Any]
    ) -> Planned:
        at = f" at batch {batch}" if table == "diffuse" else ""
        spec = {"model": self.model_of(table), **self._spec(table, data, batch), **less}
        return Planned(kind=table, name=f"bench {table}{at}, {name}", spec=spec)

    def _spec(self, table: str, data: Any, batch: int) -> dict[str, Any]:
        if table == "infer":
            return {**_INFERENCE, **self.settings(table)}
        if table == "diffuse":
            return {**_DIFFUSION, **self.settings(table), "n_images": batch, "batch_size": batch}
        return {**self.settings(table), "data": data, "steps_per_report": self.size.report}


def diffusion_request() -> dict[str, Any]:
    """Return prompt and seed of the pictures, for another program that makes them, too."""
    return {name: _DIFFUSION[name] for name in ("prompt", "seed")}


def write_rows(folder: Path) -> Path:
    """Write ``train.jsonl``: rows of WikiSQL's grammar as the tutorial has them, one text each.

    There are no validation rows, so nothing but training happens in the job.
    """
    file = folder / "train.jsonl"
    file.write_text("".join(islice(_lines(), TRAIN_ROWS)), encoding="utf-8")
    return folder


def _lines() -> Iterator[str]:
    for row in demo_rows.generate_rows(_SEED):
        yield json.dumps({"text": f"{row['prompt']} {row['completion']}"}) + "\n"
