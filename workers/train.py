"""The ``train`` kind: LoRA, DoRA or full fine-tuning of a language model.

The rule this module protects: at every yield the training can be stopped, finished early or killed,
and what follows is what would have followed. All that decides the weights is in the spec, the data
and the checkpoint; the clock only measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TypeVar

import mlx.core as mx

from daemon.errors import JobError, ModelError, NonFiniteError
from daemon.specs import TrainSpec
from workers import files, plots
from workers.events import Artifact, Checkpoint, Event, Facts, Log, Progress, SafePoint, Stopped
from workers.kinds import Context, Request
from workers.language import checkpoint, lora
from workers.language.batches import TrainingBatches, evaluation_batches
from workers.language.data import Dataset, Encoder
from workers.language.datasets import load_datasets
from workers.language.evaluate import evaluate
from workers.language.journal import Journal, perplexity
from workers.language.load import LanguageModel
from workers.language.optimizers import build_optimizer
from workers.language.samples import prompt_tokens, sample
from workers.language.trainer import Trainer, random_state, seed_key
from workers.provenance import provenance

PLOT = "loss.png"

Clock = Callable[[], float]
T = TypeVar("T")


def run(context: Context, clock: Clock = time.perf_counter) -> Iterator[Event]:
    """Train as the context's spec says, or go on from its checkpoint.

    Raises:
        JobError: the rows do not suffice, the loss became NaN or infinite, the model or adapter
            does not fit, or the disk is full.
    """
    if context.model is None or not isinstance(context.spec, TrainSpec):
        raise JobError("a training needs its spec and a model")
    yield Log(text="Loading pretrained model")
    with context.models.borrow(context.model) as loaded:
        yield SafePoint()
        training = _Training(context, context.spec, loaded, clock)
        try:
            yield from training.events()
        except NonFiniteError:
            yield from training.pictures()
            raise
        finally:
            training.journal.close()


class _Training:
    """One attempt at a training."""

    def __init__(
        self, context: Context, spec: TrainSpec, loaded: LanguageModel, clock: Clock
    ) -> None:
        self._context = context
        self._spec = spec
        self._loaded = loaded
        self._model = loaded.model
        self._clock = clock
        self._identity = checkpoint.identity(spec.model_dump(mode="json"), loaded.fingerprint)
        self._saved = self._read_checkpoint()
        self._newest = context.checkpoint
        self._newest_step = self._saved.step if self._saved else -1
        self._evaluation_seconds = 0.0
        history = self._saved.history if self._saved else None
        self.journal = Journal(context.folder, context.memory, history)

    def events(self) -> Iterator[Event]:
        """Prepare, train, and leave the artifacts."""
        self._prepare()
        total, trained = lora.count_parameters(self._model)
        yield Log(text=f"Total parameters {total / 1e6:.3f}M")
        yield Log(text=f"Trainable parameters {trained / 1e6:.3f}M")
        yield Facts(facts={**provenance(self._loaded), "trained_parameters": trained})
        yield Log(text="Loading datasets")
        yield from self._load_data()
        if self._asked(Request.STOP):
            yield Stopped()
            return
        layers = lora.trained_layers(self._model, self._spec)
        with lora.grad_checkpoint(layers, on=self._spec.grad_checkpoint):
            yield self._start()
            if (yield from self._train()) and (yield from self._test()):
                yield from self._finish()

    def pictures(self) -> Iterator[Event]:
        """Write the plot, and leave it with the metrics and samples."""
        self.journal.history()
        title = f"job {self._context.job}: {self._spec.fine_tune_type} of {self._spec.model}"
        plots.draw_training(self._context.folder / PLOT, self.journal.rows(), title=title)
        yield Artifact(path=PLOT, kind="plot")
        yield Artifact(path=checkpoint.METRICS, kind="metrics")
        if self._spec.sample_prompt is not None:
            yield Artifact(path=checkpoint.SAMPLES, kind="samples")

    def _asked(self, request: Request) -> bool:
        return self._context.control.request is request

    def _read_checkpoint(self) -> checkpoint.Snapshot | None:
        if self._context.checkpoint is None:
            return None
        return checkpoint.read(self._context.checkpoint, self._identity)

    def _prepare(self) -> None:
        """Put what is trained into the model, with its first or saved weights."""
        with random_state(seed_key(self._spec.seed)) as keys:
            config = lora.prepare(self._model, self._spec)
            mx.eval(self._model.parameters())
        self._key = keys[0]
        self._config = {**config, "model_sha256": self._loaded.fingerprint}
        if self._saved:
            self._model.load_weights(list(self._saved.adapter.items()), strict=False)
        elif self._context.adapter is not None:
            lora.start_from(self._model, self._context.adapter, config)

    def _load_data(self) -> Iterator[Event]:
        spec = self._spec
        encoder = Encoder(
            tokenizer=self._loaded.tokenizer,
            max_seq_length=spec.max_seq_length,
            mask_prompt=spec.mask_prompt,
        )
        self._data = yield from load_datasets(spec, self._context.inputs, encoder)
        self._batches = TrainingBatches(
            self._data.train,
            batch_size=spec.batch_size,
            max_seq_length=spec.max_seq_length,
            seed=spec.seed,
        )
        if spec.sample_prompt is not None:
            chat = encoder.has_template and self._data.train.form != "text"
            self._prompt = prompt_tokens(self._loaded.tokenizer, spec.sample_prompt, chat=chat)

    def _start(self) -> Event:
        """Make the trainer, at the beginning or where the checkpoint left it."""
        self._trainer = Trainer(
            self._model,
            build_optimizer(self._spec),
            iters=self._spec.iters,
            accumulation=self._spec.grad_accumulation,
            key=self._key,
        )
        saved, self._saved = self._saved, None
        if saved is None:
            return Log(text="Training")
        high, low = saved.state["random_state"]
        self._trainer.restore(saved.optimizer, steps=saved.step, key=(high, low))
        self.journal.restore(saved.state)
        return Log(text=f"Training goes on after iteration {saved.step}")

    def _train(self) -> Generator[Event, None, bool]:
        """Train to the end; False means stopped, with everything kept that is needed to go on."""
        while True:
            if self._evaluation_due():
                yield from self._until_asked(self._evaluate())
            if self._asked(Request.STOP):
                yield from self._save()
                yield Stopped()
                return False
            ended = self._trainer.steps >= self._spec.iters or self._asked(Request.FINISH)
            if ended or self._trainer.steps % self._spec.save_every == 0:
                yield from self._save()
            if ended:
                return True
            yield from self._advance()

    def _advance(self) -> Iterator[Event]:
        """Make one step and report it."""
        started = self._clock()
        result = self._trainer.step(self._batches.batch(self._trainer.steps))
        self.journal.count(result, self._clock() - started)
        step, iters = self._trainer.steps, self._spec.iters
        if not math.isfinite(result.loss):
            raise self._not_finite(f"the training loss became {result.loss}")
        yield Progress(done=step, total=iters, eta_seconds=self._remaining())
        if step % self._spec.steps_per_report == 0 or step == iters:
            line, metric = self.journal.report(step, self._trainer.learning_rate)
            yield Log(text=line)
            yield metric

    def _remaining(self) -> float | None:
        steps = self._spec.iters - self._trainer.steps
        evaluations = math.ceil(steps / self._spec.steps_per_eval) if len(self._data.valid) else 0
        return self.journal.remaining(steps, evaluations * self._evaluation_seconds)

    def _not_finite(self, what: str) -> NonFiniteError:
        step = self._trainer.steps
        kept = self._newest_step if self._newest_step > 0 else None
        good = f"; the checkpoint of iteration {kept} is good" if kept else ""
        rate = f"learning rate {self._trainer.learning_rate:.3g}"
        return NonFiniteError(
            f"{what} at iteration {step} ({rate}){good}",
            remedy="lower the learning rate, or look for odd rows in the data",
        )

    def _evaluation_due(self) -> bool:
        """Say whether to evaluate: before the first step, every so many, and at the last."""
        step = self._trainer.steps
        if self.journal.evaluated_step == step or self._asked(Request.FINISH):
            return False
        return step % self._spec.steps_per_eval == 0 or step == self._spec.iters

    def _evaluate(self) -> Generator[Event, None, None]:
        """Validate and sample; nothing is recorded unless both are done."""
        step, loss, text = max(1, self._trainer.steps), None, None
        if len(self._data.valid):
            loss, seconds = yield from self._loss_of(self._data.valid, self._spec.val_batches)
            self._evaluation_seconds = seconds
        if self._spec.sample_prompt is not None:
            answers = sample(self._loaded, self._prompt)
            text, _ = yield from self._timed(answers)
            self.journal.sample(step, self._spec.sample_prompt, text)
        self.journal.evaluated_step = self._trainer.steps
        if loss is not None:
            metric = self.journal.metric(step, {"val_loss": loss})
            yield Log(text=f"Iter {step}: Val loss {loss:.3f}, Val took {seconds:.3f}s")
            yield metric
        if text is not None:
            yield Log(text=f"Iter {step}: Sample: {text.strip()}")

    def _loss_of(self, rows: Dataset, limit: int) -> Generator[Event, None, tuple[float, float]]:
        """Return the mean loss over ``rows``, and the seconds it took."""
        batches = evaluation_batches(
            rows,
            batch_size=self._spec.batch_size,
            max_seq_length=self._spec.max_seq_length,
            limit=limit,
            seed=self._spec.seed,
        )
        try:
            return (yield from self._timed(evaluate(self._model, batches)))
        except NonFiniteError as error:
            raise self._not_finite(error.message) from None

    def _timed(self, work: Generator[None, None, T]) -> Generator[SafePoint, None, tuple[T, float]]:
        """Run ``work`` with a safe point at each of its yields; time spent elsewhere is not its."""
        seconds = 0.0
        with closing(work):
            while True:
                started = self._clock()
                try:
                    next(work)
                except StopIteration as end:
                    return end.value, seconds + self._clock() - started
                seconds += self._clock() - started
                yield SafePoint()

    def _until_asked(self, events: Generator[Event, None, None]) -> Iterator[Event]:
        """Pass ``events`` on until the engine asks for something; then leave the rest undone."""
        with closing(events):
            for event in events:
                yield event
                if self._context.control.request is not None:
                    return

    def _save(self) -> Iterator[Event]:
        """Write a checkpoint of this step, unless there is one; nothing is worth it before one."""
        step = self._trainer.steps
        if step == self._newest_step or (step == 0 and not self._asked(Request.FINISH)):
            return
        self._newest = checkpoint.write(self._context.folder, self._snapshot())
        self._newest_step = step
        folder = checkpoint.name(step)
        lasting = (f"{folder}/{checkpoint.ADAPTER}", f"{folder}/{checkpoint.CONFIG}")
        yield Checkpoint(step=step, folder=folder, files=lasting)
        checkpoint.prune(self._context.folder)

    def _snapshot(self) -> checkpoint.Snapshot:
        step = self._trainer.steps
        epoch, batch = divmod(step, self._batches.per_epoch)
        order = {"seed": self._spec.seed, "epoch": epoch, "batch": batch}
        return checkpoint.Snapshot(
            step=step,
            identity=self._identity,
            adapter=lora.trainable(self._model),
            config=self._config,
            optimizer=self._trainer.state(),
            state={
                **self.journal.state(),
                "random_state": list(self._trainer.key),
                "data_order": order,
            },
            history=self.journal.history(),
        )

    def _test(self) -> Generator[Event, None, bool]:
        """Measure the test loss if asked for; False means stopped."""
        if not self._spec.test:
            return True
        loss, _ = yield from self._loss_of(self._data.test, -1)
        if self._asked(Request.STOP):
            yield Stopped()
            return False
        values = {"test_loss": loss, "test_ppl": perplexity(loss)}
        yield Log(text=f"Test loss {loss:.3f}, Test ppl {values['test_ppl']:.3f}.")
        yield self.journal.metric(self._trainer.steps, values)
        return True

    def _finish(self) -> Iterator[Event]:
        """Give the newest checkpoint's adapter its final name; draw the picture."""
        if self._newest is None:
            raise ModelError("the training ended without a checkpoint")
        for name in (checkpoint.ADAPTER, checkpoint.CONFIG):
            files.copy_file(self._newest / name, self._context.folder / name)
            yield Artifact(path=name, kind="adapter", step=self._trainer.steps)
        yield from self.pictures()
