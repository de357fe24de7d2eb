"""Training step time beside mlx-lm's own loop, on the same batches of the same model.

    python benchmarks/train_step.py MODEL [--steps 4] [--pairs 9] [--batch-size 2]

MODEL is a model folder or GGUF file, for example the demo model. Both loops run in this process, in
turn and in changing order; each pair gives one ratio of seconds per step, and their median is what
counts. The ratio of processor time stands beside it: on a machine with other work, and with
OPENBLAS_NUM_THREADS=1, it is the steadier number. Ours is the whole ``train`` kind from its first
step to its last: metrics, progress and safe points included, evaluations and checkpoints left out
on both sides.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.startup import with_engine_environment

TARGET = 1.02


def main() -> int:
    """Measure and print one line per pair, then the median; 1 if it is above the target."""
    arguments = _arguments()
    with_engine_environment()
    from daemon.demo_rows import write_demo_data
    from workers.models import ModelCache

    models = ModelCache(1 << 40, time.monotonic)
    ratios: dict[str, list[float]] = {"wall": [], "processor": []}
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(arguments, models, write_demo_data(Path(name) / "data", 1), Path(name))
        bench.ours(), bench.theirs()
        for pair in range(arguments.pairs):
            order = (bench.ours, bench.theirs) if pair % 2 else (bench.theirs, bench.ours)
            taken = {run.__name__: run() for run in order}
            ours, theirs = taken["ours"], taken["theirs"]
            ratios["wall"].append(ours.wall / theirs.wall)
            ratios["processor"].append(ours.processor / theirs.processor)
            print(
                f"pair {pair + 1}: ours {ours.wall:.4f} s, mlx-lm {theirs.wall:.4f} s per step, "
                f"ratio {ratios['wall'][-1]:.4f}, of processor time {ratios['processor'][-1]:.4f}",
                flush=True,
            )
    medians = {what: statistics.median(found) for what, found in ratios.items()}
    print(
        f"median ratio {medians['wall']:.4f} (target at most {TARGET}), "
        f"of processor time {medians['processor']:.4f}"
    )
    return 0 if medians["wall"] <= TARGET else 1


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Wall and processor seconds per step."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Seconds:
        """Return both clocks."""
        return cls(wall=time.perf_counter(), processor=time.process_time())

    def per_step(self, start: Seconds, steps: int) -> Seconds:
        """Return the mean since ``start``."""
        return Seconds(
            wall=(self.wall - start.wall) / steps,
            processor=(self.processor - start.processor) / steps,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=2)
    return parser.parse_args()


class Bench:
    """Both loops over one model and one order of batches; a call returns seconds per step."""

    def __init__(
        self, arguments: argparse.Namespace, models: Any, data: Path, folder: Path
    ) -> None:
        from daemon.specs import TrainSpec

        self._model: Path = arguments.model
        self._models = models
        self._data = data / "train.jsonl"
        self._folder = folder
        self._runs = 0
        files = {"train": {"name": "train.jsonl", "sha256": "0" * 64}}
        self._spec = TrainSpec.model_validate(
            {
                "model": "bench",
                "data": files,
                "seed": 1,
                "iters": arguments.steps,
                "batch_size": arguments.batch_size,
                "num_layers": 8,
                "steps_per_report": 1,
                "save_every": 10_000_000,
            }
        )

    def ours(self) -> Seconds:
        """Run the train kind up to its last step."""
        from workers import train
        from workers.events import Log, Progress
        from workers.kinds import Context

        self._runs += 1
        folder = self._folder / str(self._runs)
        folder.mkdir()
        context = Context(
            job=1,
            attempt=self._runs,
            spec=self._spec,
            folder=folder,
            models=self._models,
            inputs={"data.train": self._data},
            model=self._model,
        )
        started = Seconds.now()
        for event in train.run(context):
            if isinstance(event, Log) and event.text == "Training":
                started = Seconds.now()
            if isinstance(event, Progress) and event.done == event.total:
                break
        return Seconds.now().per_step(started, self._spec.iters)

    def theirs(self) -> Seconds:
        """Run ``mlx_lm.tuner.trainer.train`` over the batches that ours would see."""
        from mlx_lm.tuner import trainer

        from workers.language import lora
        from workers.language.optimizers import build_optimizer
        from workers.language.trainer import random_state, seed_key

        with self._models.borrow(self._model) as loaded:
            with random_state(seed_key(self._spec.seed)):
                lora.prepare(loaded.model, self._spec)
            arguments = trainer.TrainingArgs(
                iters=self._spec.iters,
                batch_size=self._spec.batch_size,
                steps_per_report=1,
                steps_per_save=10_000_000,
                adapter_file=str(self._folder / "theirs.safetensors"),
            )
            report = _Clock(self._spec.iters)
            with redirect_stdout(io.StringIO()):
                trainer.train(
                    loaded.model,
                    build_optimizer(self._spec),
                    [None],
                    args=arguments,
                    iterate_batches=self._batches(loaded.tokenizer, report),
                    training_callback=report,
                )
            return report.seconds

    def _batches(self, tokenizer: Any, clock: _Clock) -> Any:
        import mlx.core as mx

        from workers.language.batches import TrainingBatches
        from workers.language.data import Dataset, Encoder, encode_file

        encoder, data = Encoder(tokenizer=tokenizer, max_seq_length=2048), Dataset()
        for data in encode_file(encoder, "train.jsonl", self._data, "data.train"):  # noqa: B007
            pass
        batches = TrainingBatches(
            data, batch_size=self._spec.batch_size, max_seq_length=2048, seed=self._spec.seed
        )

        def iterate(**_: Any) -> Iterator[tuple[Any, Any]]:
            clock.start()
            for step in range(self._spec.iters):
                batch = batches.batch(step)
                yield mx.array(batch.tokens), mx.array(batch.spans)

        return iterate


class _Clock:
    """Measures from the first batch asked for to the last step reported."""

    def __init__(self, iters: int) -> None:
        self.seconds = Seconds.now()
        self._iters = iters
        self._started = self.seconds

    def start(self) -> None:
        """Begin."""
        self._started = Seconds.now()

    def on_train_loss_report(self, report: dict[str, float]) -> None:
        """End at the last step."""
        if report["iteration"] == self._iters:
            self.seconds = Seconds.now().per_step(self._started, self._iters)

    def on_val_loss_report(self, report: dict[str, float]) -> None:
        """Nothing is validated here."""


if __name__ == "__main__":
    raise SystemExit(main())
