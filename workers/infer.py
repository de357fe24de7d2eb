"""The job kind ``infer``: text from one prompt or from a file of prompts.

The rule this module protects: an answer in the output file is whole. Each is streamed as it is
made, written when it is finished, and the file becomes an artifact once it is on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from daemon.errors import JobError
from daemon.rows import read_rows
from daemon.specs import InferSpec
from workers.events import Artifact, Event, Facts, Log, Metric, Progress, SafePoint, Text
from workers.failures import memory_errors
from workers.files import LineFile, write_text
from workers.kinds import Context, Request
from workers.language.adapters import load_adapter, read_adapter_config
from workers.language.decode_bytes import decode_facts
from workers.language.generate import PREFILL_CPU, PREFILL_GPU, Answer, Finish, Options, generate
from workers.language.load import LanguageModel
from workers.language.prompts import PromptFormat, context_length
from workers.language.sampling import Sampling
from workers.memory import on_gpu
from workers.provenance import provenance

SINGLE = "output.txt"
ROWS = "outputs.jsonl"

Events = Generator[Event, None, None]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One prompt of a file, and the answer that is expected of it if the row says so."""

    prompt: str
    expected: str | None = None


@dataclass(slots=True)
class _Totals:
    """Sums over the answers of a job."""

    answers: list[Answer] = field(default_factory=list)
    judged: int = 0
    matched: int = 0

    def metrics(self, load_seconds: float, peak: int) -> dict[str, float]:
        """Return the job's numbers; rates are over all answers, and finite."""
        prompt = sum(answer.prompt_tokens for answer in self.answers)
        prompt_seconds = sum(answer.prompt_seconds for answer in self.answers)
        later = sum(max(0, answer.tokens - 1) for answer in self.answers)
        seconds = sum(answer.generation_seconds for answer in self.answers)
        values = {
            "prompt_tokens": float(prompt),
            "prompt_tps": prompt / prompt_seconds if prompt_seconds else 0.0,
            "generation_tokens": float(sum(answer.tokens for answer in self.answers)),
            "generation_tps": later / seconds if seconds else 0.0,
            "peak_memory_bytes": float(peak),
            "load_seconds": load_seconds,
        }
        if self.judged:
            values["exact_match"] = self.matched / self.judged
        return values


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all answers of one job share."""

    context: Context
    spec: InferSpec
    model: LanguageModel
    format: PromptFormat
    totals: _Totals = field(default_factory=_Totals)

    def asked_to_finish(self) -> bool:
        """Say whether the user wants the job to end now with what there is."""
        return self.context.control.request is Request.FINISH


def run(context: Context) -> Iterator[Event]:
    """Answer the prompt or prompts of an ``InferSpec``.

    Raises:
        ModelError: the model or adapter cannot be used.
        OutOfMemoryError, DiskFullError, NonFiniteError: as their names say.
    """
    spec, path = context.spec, context.model
    if not isinstance(spec, InferSpec) or path is None:
        raise JobError("an infer job needs an InferSpec and a model")
    if not context.models.is_loaded(path):
        yield Log(text=f"Loading {spec.model}")
    seconds = context.models.load_seconds(path)
    with context.models.borrow(path) as base, memory_errors("generating text"):
        yield SafePoint()
        model = base if context.adapter is None else load_adapter(context.adapter, base)
        yield Facts(facts={**provenance(model, context.adapter), **decode_facts(model)})
        run = _Run(
            context=context,
            spec=spec,
            model=model,
            format=PromptFormat(raw=spec.raw, system=spec.system),
        )
        for note in [*_adapter_notes(run), *run.format.notes(model)]:
            yield Log(text=note)
        yield from _single(run) if spec.prompt is not None else _file(run)
        yield from _report(run, seconds)


def _single(run: _Run) -> Events:
    """Answer one prompt into ``output.txt``."""
    answer = yield from _answer(run, _Row(prompt=run.spec.prompt or ""), 0)
    write_text(run.context.folder / SINGLE, answer.text)
    yield Artifact(path=SINGLE, kind="text")
    yield Progress(done=1, total=1)


def _file(run: _Run) -> Events:
    """Answer every row of a file into ``outputs.jsonl``, one line each as it is finished."""
    rows = _read_prompts(run)
    path = run.context.folder / ROWS
    with closing(LineFile(path)) as file:
        for index, row in enumerate(rows):
            if run.asked_to_finish():
                yield Log(text=f"Finished as asked, after {index} of {len(rows)} prompts")
                break
            yield Text(text=f"[{index + 1}/{len(rows)}] ")
            answer = yield from _answer(run, row, index)
            yield Text(text="\n")
            if answer.finish is not Finish.ASKED:
                file.append(_line(run, index, row, answer))
                yield Progress(done=index + 1, total=len(rows))
        file.sync()
    yield Artifact(path=ROWS, kind="text")


def _answer(run: _Run, row: _Row, index: int) -> Generator[Event, None, Answer]:
    """Generate one answer, streaming its text; random choices depend on seed and ``index``."""
    tokens = run.format.tokens(run.model, row.prompt)
    yield from _length_note(run, len(tokens), index)
    pieces = generate(
        run.model,
        tokens,
        _options(run.spec),
        seed=run.spec.seed,
        row=index,
        ended=run.asked_to_finish,
    )
    with closing(pieces):
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                break
            yield Text(text=piece) if piece else SafePoint()
    run.totals.answers.append(answer)
    return answer


def _options(spec: InferSpec) -> Options:
    return Options(
        max_tokens=spec.max_tokens,
        stop=tuple(spec.stop),
        sampling=Sampling(temp=spec.temp, top_p=spec.top_p, top_k=spec.top_k, min_p=spec.min_p),
        prefill=PREFILL_GPU if on_gpu() else PREFILL_CPU,
    )


def _line(run: _Run, index: int, row: _Row, answer: Answer) -> str:
    """Return an answer's line of ``outputs.jsonl`` and count whether it is the expected one.

    Spaces and line ends around the answer and around what is expected do not matter.
    """
    line: dict[str, object] = {"index": index, "prompt": row.prompt, "output": answer.text}
    if row.expected is not None:
        match = answer.text.strip() == row.expected.strip()
        line |= {"expected": row.expected, "match": match}
        run.totals.judged += 1
        run.totals.matched += match
    line |= {
        "tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
        "finish": answer.finish.value,
    }
    return json.dumps(line, ensure_ascii=False)


def _read_prompts(run: _Run) -> list[_Row]:
    """Return the rows of the prompts file; the daemon has checked them when the job was queued."""
    given = run.spec.prompts
    path = run.context.inputs.get("prompts")
    if given is None or path is None:
        raise JobError("the file of prompts is not there", remedy="submit the job again")
    return [_row(given.name, line, row) for line, row in read_rows(given.name, path, "prompts")]


def _row(name: str, line: int, row: dict[str, object]) -> _Row:
    """Check one row: ``{"prompt": …}`` or ``{"text": …}``, optionally with ``"expected"``."""
    prompt, expected = row.get("prompt", row.get("text")), row.get("expected")
    if not isinstance(prompt, str):
        raise JobError(f"{name}:{line}: the row has no prompt", remedy='a row is {"prompt": "…"}')
    if expected is not None and not isinstance(expected, str):
        raise JobError(
            f"{name}:{line}: expected is not a text", remedy='"expected" is a text in quotes'
        )
    return _Row(prompt=prompt, expected=expected)


def _adapter_notes(run: _Run) -> Iterator[str]:
    """Say so when the adapter was trained with a model of another name; the shapes do fit."""
    if run.context.adapter is None:
        return
    trained_with = read_adapter_config(run.context.adapter).model
    if trained_with is not None and trained_with != run.spec.model:
        yield f"The adapter was trained with {trained_with}; it is used with {run.spec.model}"


def _length_note(run: _Run, tokens: int, index: int) -> Iterator[Event]:
    """Say so when prompt and answer together may pass the length the model was made for."""
    limit = context_length(run.model)
    if limit is not None and tokens + run.spec.max_tokens > limit:
        yield Log(
            text=f"Prompt {index + 1} has {tokens} tokens; with up to {run.spec.max_tokens} more "
            f"it passes the {limit} that the model was made for, and the answer may degrade"
        )


def _report(run: _Run, load_seconds: float) -> Events:
    """Say what the job took: as metrics, and as lines people know from mlx-lm."""
    totals = run.totals
    values = totals.metrics(load_seconds, run.context.memory.peak())
    yield Metric(step=len(totals.answers), values=values)
    lines = [
        f"Prompt: {values['prompt_tokens']:.0f} tokens, {values['prompt_tps']:.3f} tokens-per-sec",
        f"Generation: {values['generation_tokens']:.0f} tokens, "
        f"{values['generation_tps']:.3f} tokens-per-sec",
        f"Peak memory: {values['peak_memory_bytes'] / 1e9:.3f} GB",
    ]
    if totals.judged:
        share = values["exact_match"]
        lines.append(f"Exact match: {totals.matched} of {totals.judged} ({share:.1%})")
    yield Log(text="\n".join(lines))
