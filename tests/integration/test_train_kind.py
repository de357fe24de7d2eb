"""The train kind, run as the engine runs it: real model, real files, closed at any safe point."""

from __future__ import annotations

import io
import json
import math
import random
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner import trainer as peer

from daemon.errors import JobError, ModelError, NonFiniteError, SpecRefusedError
from daemon.specs import TrainSpec
from workers import train
from workers.events import Artifact, Checkpoint, Event, Facts, Log, Metric, Progress, Stopped
from workers.kinds import Context, Control, Request
from workers.language import checkpoint, lora
from workers.language.batches import TrainingBatches
from workers.language.data import Dataset, Encoder
from workers.language.optimizers import build_optimizer
from workers.language.trainer import random_state, seed_key
from workers.models import ModelCache

TEXTS = [f"{word} {count} {word}s" for count in range(2, 9) for word in ("cat", "oak", "mountain")]
HASH = "0" * 64


class Workplace:
    """Makes contexts over one tiny model and one file of rows."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.models = ModelCache(1 << 30, lambda: 0.0)
        self.attempts = 0
        self.write([{"text": text} for text in TEXTS])

    def write(self, rows: list[dict[str, Any]]) -> None:
        self.data = self.folder / "rows.jsonl"
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def spec(self, **options: Any) -> TrainSpec:
        files = {"rows": {"name": "rows.jsonl", "sha256": HASH}}
        defaults: dict[str, Any] = {
            "model": "tiny",
            "data": files,
            "seed": 11,
            "iters": 12,
            "batch_size": 3,
            "learning_rate": 1e-3,
            "max_seq_length": 64,
            "save_every": 4,
            "steps_per_eval": 5,
            "steps_per_report": 3,
        }
        return TrainSpec.model_validate({**defaults, **options})

    def context(
        self,
        spec: TrainSpec,
        *,
        checkpoint: Path | None = None,
        adapter: Path | None = None,
        inputs: dict[str, Path] | None = None,
    ) -> Context:
        self.attempts += 1
        folder = self.folder / f"attempt-{self.attempts}"
        folder.mkdir()
        return Context(
            job=7,
            attempt=self.attempts,
            spec=spec,
            folder=folder,
            models=self.models,
            inputs=inputs or {"data.rows": self.data},
            model=self.model,
            adapter=adapter,
            checkpoint=checkpoint,
            control=Control(),
        )

    def run(self, spec: TrainSpec, **options: Any) -> tuple[Context, list[Event]]:
        context = self.context(spec, **options)
        return context, list(train.run(context))


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path) -> Workplace:
    return Workplace(tmp_path, tiny_model)


def logs(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Log)]


def adapter_of(context: Context) -> bytes:
    return (context.folder / "adapters.safetensors").read_bytes()


def metrics_of(context: Context) -> list[dict[str, float]]:
    lines = (context.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses_of(context: Context) -> list[tuple[float, ...]]:
    names = ("iteration", "train_loss", "val_loss", "trained_tokens", "learning_rate")
    return [tuple(row[name] for name in names if name in row) for row in metrics_of(context)]


def until(events: Iterator[Event], number: int) -> list[Event]:
    """Return the first ``number`` events and close the generator, as a dying engine would not."""
    seen = [event for event, _ in zip(events, range(number), strict=False)]
    events.close()  # type: ignore[attr-defined]
    return seen


def newest(context: Context, events: list[Event]) -> Path | None:
    steps = [event for event in events if isinstance(event, Checkpoint)]
    return context.folder / steps[-1].folder if steps else None


def test_a_training_speaks_the_tutorials_lines(workplace: Workplace) -> None:
    _, events = workplace.run(workplace.spec())
    lines = logs(events)
    assert lines[0] == "Loading pretrained model"
    assert lines[1] == "Total parameters 0.091M"
    assert lines[2] == "Trainable parameters 0.016M"
    assert lines[3:5] == [
        "Loading datasets",
        "Batches for validation have 2 rows: there are no more",
    ]
    assert lines[5] == "Training"
    assert lines[6].startswith("Iter 1: Val loss ")
    assert lines[7].startswith("Iter 3: Train loss ")
    assert ", It/sec " in lines[7]
    assert ", Tokens/sec " in lines[7]


def test_a_training_leaves_what_it_promises(workplace: Workplace) -> None:
    context, events = workplace.run(workplace.spec())
    artifacts = {event.path: event.kind for event in events if isinstance(event, Artifact)}
    assert artifacts == {
        "adapters.safetensors": "adapter",
        "adapter_config.json": "adapter",
        "loss.png": "plot",
        "metrics.jsonl": "metrics",
    }
    assert all((context.folder / path).stat().st_size for path in artifacts)
    assert (context.folder / "loss.png").read_bytes()[:4] == b"\x89PNG"
    metrics = [event for event in events if isinstance(event, Metric)]
    assert [{"iteration": m.step, **m.values} for m in metrics] == metrics_of(context)
    assert [e.done for e in events if isinstance(e, Progress)] == list(range(1, 13))
    facts = {k: v for e in events if isinstance(e, Facts) for k, v in e.facts.items()}
    assert facts["train_rows"] == 19
    assert facts["valid_rows"] == 2


def test_evaluations_and_checkpoints_come_when_the_spec_says(workplace: Workplace) -> None:
    context, events = workplace.run(workplace.spec())
    evaluated = [row["iteration"] for row in metrics_of(context) if "val_loss" in row]
    assert evaluated == [1, 5, 10, 12]
    saved = [event.step for event in events if isinstance(event, Checkpoint)]
    assert saved == [4, 8, 12]
    folders = context.folder / "checkpoints"
    assert sorted(path.name for path in folders.iterdir()) == ["0000004", "0000008", "0000012"]
    assert not (folders / "0000004" / "optimizer.safetensors").exists()
    assert (folders / "0000008" / "optimizer.safetensors").exists()


def test_training_learns_and_leaves_the_kept_model_alone(workplace: Workplace) -> None:
    kept = workplace.models.language(workplace.model).model
    before = {name: mx.array(value) for name, value in tree_flatten(kept.parameters())}
    context, _ = workplace.run(workplace.spec(iters=40, steps_per_report=1, grad_checkpoint=True))
    losses = [row["train_loss"] for row in metrics_of(context) if "train_loss" in row]
    assert losses[-1] < losses[0] / 2
    after = dict(tree_flatten(kept.parameters()))
    assert before.keys() == after.keys()
    assert all(mx.array_equal(before[name], after[name]) for name in before)
    assert {type(layer).__name__ for layer in kept.layers} == {"TransformerBlock"}


VARIANTS: dict[str, dict[str, Any]] = {
    "lora with dropout": {"dropout": 0.2},
    "dora": {"fine_tune_type": "dora", "optimizer": "adamw"},
    "full": {"fine_tune_type": "full", "num_layers": 1},
    "accumulation": {"grad_accumulation": 5, "dropout": 0.1},
    "adafactor": {"optimizer": "adafactor"},
    "cosine": {"lr_schedule": "cosine", "warmup": 3},
    "linear": {"lr_schedule": "linear", "optimizer": "sgd"},
    "recomputed": {"grad_checkpoint": True, "dropout": 0.1},
    "sampled": {"sample_prompt": "cat"},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_killed_and_resumed_training_ends_with_the_same_bytes(
    workplace: Workplace, options: dict[str, Any]
) -> None:
    spec = workplace.spec(**options)
    whole, events = workplace.run(spec)
    chance = random.Random(repr(options))
    last: Path | None = None
    for _ in range(3):
        context = workplace.context(spec, checkpoint=last)
        seen = until(iter(train.run(context)), chance.randrange(len(events)))
        last = newest(context, seen) or last
        mx.random.seed(chance.randrange(1 << 30))
    resumed, _ = workplace.run(spec, checkpoint=last)
    assert adapter_of(resumed) == adapter_of(whole)
    assert losses_of(resumed) == losses_of(whole)


@pytest.mark.parametrize("stop_at", (13, 27, 48, 75))
def test_a_stopped_training_goes_on_where_it_was(workplace: Workplace, stop_at: int) -> None:
    spec = workplace.spec(grad_accumulation=5, dropout=0.1, sample_prompt="oak")
    whole, _ = workplace.run(spec)
    context = workplace.context(spec)
    seen = []
    for number, event in enumerate(train.run(context)):
        seen.append(event)
        if number == stop_at:
            context.control.request = Request.STOP
    if not isinstance(seen[-1], Stopped):
        assert adapter_of(context) == adapter_of(whole)
        return
    resumed, _ = workplace.run(spec, checkpoint=newest(context, seen))
    assert adapter_of(resumed) == adapter_of(whole)
    assert losses_of(resumed) == losses_of(whole)


def test_two_interleaved_trainings_do_not_disturb_each_other(workplace: Workplace) -> None:
    specs = [workplace.spec(seed=seed, dropout=0.3) for seed in (1, 2)]
    alone = [adapter_of(workplace.run(spec)[0]) for spec in specs]
    contexts = [workplace.context(spec) for spec in specs]
    runs: list[Iterator[Event]] = [iter(train.run(context)) for context in contexts]
    while runs:
        runs = [run for run in runs if next(run, None) is not None]
    assert [adapter_of(context) for context in contexts] == alone


def test_finish_ends_early_with_what_there_is(workplace: Workplace) -> None:
    context = workplace.context(workplace.spec(iters=1000, save_every=1000))
    events = []
    for event in train.run(context):
        events.append(event)
        if isinstance(event, Progress) and event.done == 5:
            context.control.request = Request.FINISH
    assert [event.step for event in events if isinstance(event, Checkpoint)] == [5]
    assert {e.path for e in events if isinstance(e, Artifact)} >= {
        "adapters.safetensors",
        "loss.png",
    }
    assert adapter_of(context)


def test_the_test_rows_are_measured_at_the_end(workplace: Workplace) -> None:
    names = ("train", "valid", "test")
    files = {name: {"name": f"{name}.jsonl", "sha256": HASH} for name in names}
    inputs = {f"data.{name}": workplace.data for name in names}
    context, events = workplace.run(workplace.spec(data=files, test=True), inputs=inputs)
    last = metrics_of(context)[-1]
    line = f"Test loss {last['test_loss']:.3f}, Test ppl {last['test_ppl']:.3f}."
    assert line in logs(events)
    assert last["test_ppl"] == pytest.approx(math.exp(last["test_loss"]))
    assert metrics_of(context)[-2]["val_loss"] == pytest.approx(last["test_loss"])


def test_samples_follow_each_evaluation(workplace: Workplace) -> None:
    context, events = workplace.run(workplace.spec(sample_prompt="cat 2"))
    lines = (context.folder / "samples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["iteration"] for row in rows] == [1, 5, 10, 12]
    assert {row["prompt"] for row in rows} == {"cat 2"}
    assert Artifact(path="samples.jsonl", kind="samples") in events
    plain, _ = workplace.run(workplace.spec())
    assert adapter_of(plain) == adapter_of(context)


@pytest.fixture
def damaged_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with an output layer of its own and NaN as the embedding of the letter Z."""
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    _, tokenizer = mlx_lm.load(str(tiny_model))
    weights: Any = mx.load(str(folder / "model.safetensors"))
    embedding = weights["model.embed_tokens.weight"]
    weights["lm_head.weight"] = embedding * 1.0
    embedding[tokenizer.encode("Z")[0]] = math.nan
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def collect(run: Iterator[Event], events: list[Event]) -> None:
    for event in run:
        events.append(event)


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    workplace: Workplace, damaged_model: Path
) -> None:
    workplace.model = damaged_model
    workplace.write([*({"text": text} for text in TEXTS), {"text": "Z is for zebra"}])
    files = {"train": {"name": "rows.jsonl", "sha256": HASH}}
    context = workplace.context(
        workplace.spec(data=files, save_every=1, seed=5), inputs={"data.train": workplace.data}
    )
    events: list[Event] = []
    with pytest.raises(NonFiniteError, match=r"loss became nan at iteration \d+ .* is good"):
        collect(train.run(context), events)
    assert Artifact(path="loss.png", kind="plot") in events
    last = newest(context, events)
    assert last is not None
    assert lora.is_finite(lora.load_arrays(last / "adapters.safetensors"))
    assert not (context.folder / "adapters.safetensors").exists()


def test_a_validation_loss_that_is_no_number_fails_the_job(
    workplace: Workplace, damaged_model: Path
) -> None:
    workplace.model = damaged_model
    workplace.write([{"text": f"Z {text}"} for text in TEXTS])
    with pytest.raises(NonFiniteError, match="the loss of an evaluation became nan"):
        workplace.run(workplace.spec())


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    snapshot = checkpoint.Snapshot(
        step=3,
        identity="",
        adapter={"a": mx.array([1.0, math.inf])},
        config={},
        optimizer={},
        state={},
        history={},
    )
    with pytest.raises(NonFiniteError, match="at iteration 3"):
        checkpoint.write(tmp_path, snapshot)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_spec_is_refused(workplace: Workplace) -> None:
    context, events = workplace.run(workplace.spec())
    other = workplace.context(workplace.spec(learning_rate=0.5), checkpoint=newest(context, events))
    with pytest.raises(ModelError, match="another spec"):
        list(train.run(other))


def test_a_damaged_checkpoint_is_refused(workplace: Workplace) -> None:
    spec = workplace.spec()
    context, events = workplace.run(spec)
    folder = newest(context, events)
    assert folder is not None
    content = bytearray((folder / "optimizer.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "optimizer.safetensors").write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"optimizer\.safetensors is missing or damaged"):
        list(train.run(workplace.context(spec, checkpoint=folder)))


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_mlx_lm_loads_the_adapter_and_agrees(workplace: Workplace, kind: str) -> None:
    context, _ = workplace.run(workplace.spec(fine_tune_type=kind, iters=8))
    theirs, _ = mlx_lm.load(str(workplace.model), adapter_path=str(context.folder))
    base, tokenizer = mlx_lm.load(str(workplace.model))
    with random_state(seed_key(1)):
        lora.prepare(base, workplace.spec(fine_tune_type=kind))
    base.load_weights(str(context.folder / "adapters.safetensors"), strict=False)
    base.eval()
    tokens = mx.array([tokenizer.encode("oak 3 oaks")])
    assert mx.array_equal(base(tokens), theirs(tokens))
    untrained, _ = mlx_lm.load(str(workplace.model))
    assert not mx.allclose(untrained(tokens), theirs(tokens), atol=1e-3)


class _Losses:
    """Collects what mlx-lm's own trainer reports."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_loss_report(self, report: dict[str, float]) -> None:
        self.values.append(report["train_loss"])

    def on_val_loss_report(self, report: dict[str, float]) -> None:
        raise AssertionError(report)


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_losses_equal_mlx_lms_own_trainer(
    workplace: Workplace, kind: str, accumulation: int, tmp_path: Path
) -> None:
    spec = workplace.spec(
        fine_tune_type=kind, grad_accumulation=accumulation, steps_per_report=1, iters=9
    )
    inputs = {f"data.{name}": workplace.data for name in ("train", "valid")}
    files = {name: {"name": "rows.jsonl", "sha256": HASH} for name in ("train", "valid")}
    spec = spec.model_copy(update={"data": type(spec.data).model_validate(files)})
    context, _ = workplace.run(spec, inputs=inputs)
    ours = [row["train_loss"] for row in metrics_of(context) if "train_loss" in row]
    assert ours == pytest.approx(_peer_losses(workplace, spec, tmp_path), rel=1e-5)


def _peer_losses(workplace: Workplace, spec: TrainSpec, folder: Path) -> list[float]:
    model, tokenizer = mlx_lm.load(str(workplace.model))
    with random_state(seed_key(spec.seed)):
        lora.prepare(model, spec)
        mx.eval(model.parameters())
    encoder, dataset = Encoder(tokenizer=tokenizer, max_seq_length=64), Dataset()
    for text in TEXTS:
        encoder.add(dataset, {"text": text}, "rows.jsonl")
    batches = TrainingBatches(
        dataset, batch_size=spec.batch_size, max_seq_length=64, seed=spec.seed
    )

    def iterate(**_: Any) -> Iterator[tuple[mx.array, mx.array]]:
        # mlx-lm's mask includes the place after the last token, which is padding.
        for step in range(spec.iters):
            batch = batches.batch(step)
            yield mx.array(batch.tokens), mx.array(batch.spans) - mx.array([[0, 1]])

    arguments = peer.TrainingArgs(
        iters=spec.iters,
        steps_per_report=1,
        adapter_file=str(folder / "peer.safetensors"),
        grad_accumulation_steps=spec.grad_accumulation,
    )
    losses = _Losses()
    with redirect_stdout(io.StringIO()):
        peer.train(
            model,
            build_optimizer(spec),
            [None],
            args=arguments,
            iterate_batches=iterate,
            training_callback=losses,
        )
    return losses.values


def test_training_can_start_from_another_jobs_adapter(workplace: Workplace) -> None:
    first, _ = workplace.run(workplace.spec(iters=40))
    again, _ = workplace.run(workplace.spec(iters=3), adapter=first.folder)
    assert metrics_of(again)[0]["val_loss"] == pytest.approx(metrics_of(first)[-1]["val_loss"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 4}, "rank 8, this job 4"),
        ({"scale": 2.0}, r"scale 20\.0, this job 2\.0"),
        ({"fine_tune_type": "full"}, "fine-tune-type lora, this job full"),
        ({"num_layers": 1}, "num-layers 2, this job 1"),
        ({"keys": ["q_proj"]}, "is not trained by this job"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    workplace: Workplace, options: dict[str, Any], words: str
) -> None:
    first, _ = workplace.run(workplace.spec(iters=1))
    context = workplace.context(workplace.spec(**options), adapter=first.folder)
    with pytest.raises(ModelError, match=words):
        list(train.run(context))


def test_unknown_keys_are_refused_with_what_there_is(workplace: Workplace) -> None:
    with pytest.raises(SpecRefusedError, match="no linear layer 'wq'") as caught:
        workplace.run(workplace.spec(keys=["wq"]))
    assert "self_attn.q_proj" in str(caught.value.remedy)


def test_chosen_keys_are_written_as_mlx_lm_reads_them(workplace: Workplace) -> None:
    context, _ = workplace.run(workplace.spec(keys=["v_proj", "self_attn.q_proj"], iters=1))
    config = json.loads((context.folder / "adapter_config.json").read_text())
    assert config["lora_parameters"]["keys"] == ["self_attn.q_proj", "self_attn.v_proj"]
    assert config["num_layers"] == 2
    mlx_lm.load(str(workplace.model), adapter_path=str(context.folder))


def test_long_rows_are_cut_counted_and_said(workplace: Workplace) -> None:
    context, events = workplace.run(workplace.spec(max_seq_length=12, iters=1))
    cut = sum(len(text) + 1 > 12 for text in TEXTS)
    assert f"rows.jsonl: {cut} rows were cut at 12 tokens (max_seq_length)" in logs(events)
    facts = {k: v for e in events if isinstance(e, Facts) for k, v in e.facts.items()}
    assert facts["truncated_rows"] == cut
    assert adapter_of(context)


def test_prompts_that_fill_the_limit_leave_nothing_to_learn(workplace: Workplace) -> None:
    workplace.write([{"prompt": "x" * 100, "completion": "y"} for _ in range(9)])
    with pytest.raises(JobError, match="0 rows for training are left, fewer than a batch of 3"):
        workplace.run(workplace.spec(mask_prompt=True))


def test_masked_prompts_train_on_the_answers_alone(workplace: Workplace) -> None:
    rows = [{"prompt": f"{word} {n}?", "completion": word} for n in range(9) for word in ("a", "b")]
    workplace.write(rows)
    masked, _ = workplace.run(workplace.spec(mask_prompt=True, iters=3))
    whole, _ = workplace.run(workplace.spec(iters=3))
    tokens = [metrics_of(context)[1]["trained_tokens"] for context in (masked, whole)]
    assert tokens[0] == 3 * 3 * len("a<|im_end|>\n".replace("<|im_end|>", "E"))
    assert tokens[1] > 5 * tokens[0]


def test_a_model_with_a_sentencepiece_tokenizer_alone_is_trained(
    tmp_path: Path, sentencepiece_model: Path
) -> None:
    workplace = Workplace(tmp_path, sentencepiece_model)
    job, _ = workplace.run(workplace.spec(sample_prompt="a cat", learning_rate=1e-2))
    losses = [line["train_loss"] for line in metrics_of(job) if "train_loss" in line]
    assert losses[-1] < losses[0]
