from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from daemon.adapter_config import CONFIG
from daemon.errors import DiskFullError, JobError, ModelError, SpecRefusedError
from daemon.specs import InferSpec, InputFile
from workers import infer
from workers.events import Artifact, Event, Facts, Log, Metric, Progress, SafePoint, Text
from workers.kinds import Context, Control, Request
from workers.language.adapters import WEIGHTS
from workers.memory import free_unused
from workers.models import ModelCache, own_tree

HASH = "0" * 64


@pytest.fixture
def cache() -> Iterator[ModelCache]:
    models = ModelCache(2**30, time.monotonic)
    yield models
    models.clear()


@pytest.fixture
def context(cache: ModelCache, tiny_model: Path, tmp_path: Path) -> Callable[..., Context]:
    """Make a context: ``context(prompt="hi", …)``; ``rows`` writes a file of prompts."""
    attempts = iter(range(1, 100))

    def make(
        *,
        rows: list[dict[str, Any]] | str | None = None,
        adapter: Path | None = None,
        model: Path = tiny_model,
        control: Control | None = None,
        **options: Any,
    ) -> Context:
        number = next(attempts)
        folder = tmp_path / f"attempt-{number}"
        folder.mkdir()
        inputs = {}
        if rows is not None:
            inputs["prompts"] = tmp_path / f"rows-{number}"
            text = rows if isinstance(rows, str) else "".join(json.dumps(r) + "\n" for r in rows)
            inputs["prompts"].write_text(text, encoding="utf-8")
            options["prompts"] = InputFile(name="questions.jsonl", sha256=HASH)
        spec = InferSpec(**{"model": "tiny", "seed": 1, "max_tokens": 8, **options})
        return Context(
            job=1,
            attempt=number,
            spec=spec,
            folder=folder,
            models=cache,
            inputs=inputs,
            model=model,
            adapter=adapter,
            control=control or Control(),
        )

    return make


Make = Callable[..., Context]


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def log(events: list[Event]) -> str:
    return "\n".join(event.text for event in of(Log, events))


def lines(context: Context) -> list[dict[str, Any]]:
    text = (context.folder / infer.ROWS).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_one_prompt_streams_its_text_and_leaves_it_in_a_file(context: Make) -> None:
    job = context(prompt="hello")
    events = list(infer.run(job))
    streamed = "".join(event.text for event in of(Text, events))
    assert streamed
    assert (job.folder / "output.txt").read_text(encoding="utf-8") == streamed
    assert of(Artifact, events) == [Artifact(path="output.txt", kind="text")]
    assert of(Progress, events)[-1] == Progress(done=1, total=1)
    assert [path.name for path in job.folder.iterdir()] == ["output.txt"]


def test_what_the_job_took_and_was_made_with_is_reported(context: Make) -> None:
    events = list(infer.run(context(prompt="hello")))
    values = of(Metric, events)[-1].values
    assert values["prompt_tokens"] > 5
    assert 1 <= values["generation_tokens"] <= 8
    assert values["prompt_tps"] > 0
    assert values["peak_memory_bytes"] > 0
    facts = of(Facts, events)[0].facts
    assert len(facts["model_fingerprint"]) == 64
    assert facts["device_kind"] == "cpu"
    assert facts["version_mlx"]
    assert facts["version_mlx-lm"]


def test_a_second_inference_loads_nothing(context: Make) -> None:
    first, second = (list(infer.run(context(prompt="hello"))) for _ in range(2))
    assert of(Metric, first)[-1].values["load_seconds"] > 0
    assert of(Metric, second)[-1].values["load_seconds"] == 0
    assert "Loading tiny" in log(first)
    assert "Loading" not in log(second)


def test_a_raw_prompt_keeps_its_spaces(context: Make, cache: ModelCache, tiny_model: Path) -> None:
    encode = cache.language(tiny_model).tokenizer.encode
    for prompt in ("two  ", "two"):
        events = list(infer.run(context(prompt=prompt, raw=True)))
        assert of(Metric, events)[-1].values["prompt_tokens"] == len(encode(prompt))


def test_the_system_message_is_part_of_the_prompt(context: Make) -> None:
    plain, told = (
        of(Metric, list(infer.run(context(prompt="hi", system=system))))[-1].values["prompt_tokens"]
        for system in (None, "be brief")
    )
    assert told >= plain + len("be brief")


def test_a_model_without_chat_template_is_said_to_be_used_raw(
    context: Make, tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "plain"))
    (folder / "chat_template.jinja").unlink()
    events = list(infer.run(context(prompt="hi", model=folder)))
    assert "plain has no chat template: the prompt is sent as it is" in log(events)
    assert of(Metric, events)[-1].values["prompt_tokens"] == 2


def test_a_template_that_refuses_the_system_message(
    context: Make, tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "strict"))
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(ModelError, match="no system role"):
        list(infer.run(context(prompt="hi", system="x", model=folder)))


def test_passing_the_models_length_is_said(context: Make) -> None:
    events = list(infer.run(context(prompt="x" * 520, max_tokens=1)))
    assert "passes the 512 that the model was made for" in log(events)


def test_a_long_prompt_has_safe_points(context: Make) -> None:
    events = list(infer.run(context(prompt="x" * 500, max_tokens=1)))
    before_text = events[: next(i for i, e in enumerate(events) if isinstance(e, (Text, Artifact)))]
    assert len(of(SafePoint, before_text)) >= 4


def test_a_file_of_prompts_gives_a_line_for_each(context: Make) -> None:
    rows = [{"prompt": "one"}, {"text": "zwei é"}, {"prompt": "three", "expected": None}]
    job = context(rows=rows)
    events = list(infer.run(job))
    found = lines(job)
    assert [line["index"] for line in found] == [0, 1, 2]
    assert [line["prompt"] for line in found] == ["one", "zwei é", "three"]
    assert all("match" not in line for line in found)
    assert of(Artifact, events) == [Artifact(path="outputs.jsonl", kind="text")]
    assert of(Progress, events)[-1] == Progress(done=3, total=3)
    streamed = "".join(event.text for event in of(Text, events))
    assert all(line["output"] in streamed for line in found)


def test_exact_matches_are_counted(context: Make) -> None:
    first = context(rows=[{"prompt": "a"}])
    list(infer.run(first))
    right = lines(first)[0]["output"]
    rows = [
        {"prompt": "a", "expected": f" {right}\n"},
        {"prompt": "a", "expected": right + "!"},
        {"prompt": "a"},
    ]
    job = context(rows=rows)
    events = list(infer.run(job))
    assert [line.get("match") for line in lines(job)] == [True, False, None]
    assert of(Metric, events)[-1].values["exact_match"] == 0.5
    assert "Exact match: 1 of 2 (50.0%)" in log(events)


def test_a_rows_answer_does_not_depend_on_the_other_rows(context: Make) -> None:
    jobs = [
        context(rows=[{"prompt": first}, {"prompt": "same"}], temp=1.0)
        for first in ("short", "a much longer first row" * 5)
    ]
    for job in jobs:
        list(infer.run(job))
    assert lines(jobs[0])[1]["output"] == lines(jobs[1])[1]["output"]
    assert lines(jobs[0])[0]["output"] != lines(jobs[1])[0]["output"]


def test_equal_prompts_of_one_file_are_sampled_independently(context: Make) -> None:
    job = context(rows=[{"prompt": "same"}] * 4, temp=1.0)
    list(infer.run(job))
    assert len({line["output"] for line in lines(job)}) > 1


@pytest.mark.parametrize(
    ("text", "words", "kind"),
    [
        ('{"prompt": "a"}\n{"promt": "b"}\n', r"questions\.jsonl:2: .*no prompt", JobError),
        ('\n{"prompt": "a", "expected": 4}\n', r"questions\.jsonl:2: expected", JobError),
        ('{"prompt": "a"}\n{"prompt"\n', r"questions\.jsonl:2", SpecRefusedError),
    ],
)
def test_a_bad_row_is_named_before_any_is_answered(
    context: Make, text: str, words: str, kind: type[Exception]
) -> None:
    job = context(rows=text)
    with pytest.raises(kind, match=words):
        list(infer.run(job))
    assert list(job.folder.iterdir()) == []


def test_an_empty_raw_prompt_is_refused(context: Make) -> None:
    with pytest.raises(JobError, match="no tokens"):
        list(infer.run(context(prompt="", raw=True)))


def test_finish_ends_a_single_answer_with_what_there_is(context: Make) -> None:
    control = Control()
    job = context(prompt="hello", control=control, max_tokens=500)
    events: list[Event] = []
    for event in infer.run(job):
        events.append(event)
        if len(of(Text, events)) == 3:
            control.request = Request.FINISH
    streamed = "".join(event.text for event in of(Text, events))
    assert (job.folder / "output.txt").read_text(encoding="utf-8") == streamed
    assert of(Metric, events)[-1].values["generation_tokens"] < 100


def test_finish_ends_a_file_after_its_last_whole_answer(context: Make) -> None:
    control = Control()
    job = context(rows=[{"prompt": str(number)} for number in range(50)], control=control)
    events: list[Event] = []
    for event in infer.run(job):
        events.append(event)
        if isinstance(event, Progress) and event.done == 2:
            control.request = Request.FINISH
    assert [line["index"] for line in lines(job)] == [0, 1]
    assert of(Artifact, events) == [Artifact(path="outputs.jsonl", kind="text")]
    assert "Finished as asked, after 2 of 50 prompts" in log(events)


def test_a_closed_job_gives_the_model_back(
    context: Make, cache: ModelCache, tiny_model: Path
) -> None:
    cache.language(tiny_model)
    free_unused()
    before = mx.get_active_memory()
    for steps in range(1, 12):
        running = infer.run(context(prompt="x" * 300, max_tokens=100))
        for _ in range(steps):
            next(running)
        running.close()  # type: ignore[attr-defined]
        del running
    assert free_unused() == before
    cache.clear()
    assert cache.paths() == []


def test_two_jobs_taking_turns_answer_as_they_do_alone(
    context: Make, cache: ModelCache, tiny_model: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", cache, tiny_model)
    options: list[dict[str, Any]] = [
        {"prompt": "one", "temp": 1.0},
        {"prompt": "two", "temp": 1.0, "adapter": adapter},
    ]
    alone = [output(context(**each)) for each in options]
    jobs = [context(**each) for each in options]
    running = [infer.run(job) for job in jobs]
    while running:
        running = [each for each in running if next(each, None) is not None]
    assert [(job.folder / "output.txt").read_text() for job in jobs] == alone


def test_an_adapter_is_used_recorded_and_forgotten(
    context: Make, cache: ModelCache, tiny_model: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", cache, tiny_model)
    plain = output(context(prompt="hello"))
    job = context(prompt="hello", adapter=adapter)
    events = list(infer.run(job))
    assert (job.folder / "output.txt").read_text() != plain
    assert len(of(Facts, events)[0].facts["adapter_sha256"]) == 64
    assert "trained with another/model; it is used with tiny" in log(events)
    assert output(context(prompt="hello")) == plain


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (".output.txt.part", {"prompt": "hello"}),
        (infer.ROWS, {"rows": [{"prompt": "hello"}]}),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_is_said_as_what_it_is(
    context: Make, name: str, options: dict[str, Any]
) -> None:
    job = context(**options)
    (job.folder / name).symlink_to("/dev/full")
    events: list[Event] = []
    with pytest.raises(DiskFullError, match=infer.SINGLE if "prompt" in options else infer.ROWS):
        events.extend(infer.run(job))
    assert of(Artifact, events) == []


def output(job: Context) -> str:
    list(infer.run(job))
    return (job.folder / "output.txt").read_text()


def write_adapter(folder: Path, cache: ModelCache, model: Path) -> Path:
    """Write a random LoRA adapter for ``model``, said to be of another one."""
    settings = {"rank": 4, "scale": 20.0, "dropout": 0.0}
    tree = own_tree(cache.language(model).model)
    tree.freeze()
    linear_to_lora_layers(tree, 2, settings)
    mx.random.seed(1)
    weights = {
        name: mx.random.normal(array.shape) * 0.2
        for name, array in tree_flatten(tree.trainable_parameters())
    }
    folder.mkdir()
    mx.save_safetensors(str(folder / WEIGHTS), weights)
    config = {"num_layers": 2, "lora_parameters": settings, "model": "another/model"}
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


def test_a_model_with_a_sentencepiece_tokenizer_alone_answers(
    context: Make, sentencepiece_model: Path
) -> None:
    job = context(prompt="Grüße", model=sentencepiece_model)
    events = list(infer.run(job))
    streamed = "".join(event.text for event in of(Text, events))
    assert streamed
    assert (job.folder / infer.SINGLE).read_text(encoding="utf-8") == streamed
    assert "no chat template" in log(events)
