"""From the metrics that ended jobs left in the ledger to figures.

The rule this module protects: only what a job measured of its own work counts, never the time
between submission and end: other people's jobs come between, and models are loaded or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from daemon.bench.record import Figure
from daemon.errors import JobError


def training_rates(metrics: Sequence[Any]) -> dict[str, float]:
    """Return iterations and trained tokens per second of one training, its first report left out.

    In the first report's iterations the training step is compiled. Each report holds the mean rates
    of its own iterations; a mean of rates is not the rate, so the seconds are added up.

    Raises:
        JobError: there are not two reports.
    """
    reports: dict[int, dict[str, float]] = {}
    for metric in metrics:
        reports.setdefault(metric["step"], {})[metric["name"]] = metric["value"]
    steps = sorted(step for step, values in reports.items() if "it_per_sec" in values)
    iterations = seconds = tokens = 0.0
    for before, step in pairwise(steps):
        took = (step - before) / reports[step]["it_per_sec"]
        iterations, seconds = iterations + step - before, seconds + took
        tokens += took * reports[step]["tokens_per_sec"]
    if not seconds:
        raise JobError(f"a training left {len(steps)} reports; a rate needs at least two")
    return {"it_per_sec": iterations / seconds, "tokens_per_sec": tokens / seconds}


def training_figures(jobs: Sequence[Any], metrics: Sequence[Sequence[Any]]) -> tuple[Figure, ...]:
    """Return the figures of trainings; ``metrics``: of each, as the client gives them."""
    rates = [training_rates(each) for each in metrics]
    return (
        _figure("train.it_per_sec", "it/s", [rate["it_per_sec"] for rate in rates], jobs),
        _figure("train.tokens_per_sec", "tok/s", [rate["tokens_per_sec"] for rate in rates], jobs),
        _peak("train", jobs),
    )


def inference_figures(jobs: Sequence[Any]) -> tuple[Figure, ...]:
    """Return the figures of inferences; the first token of each answer counts to its prompt."""
    rates = [_metric(job, "generation_tps") for job in jobs]
    return (_figure("infer.tokens_per_sec", "tok/s", rates, jobs), _peak("infer", jobs))


def diffusion_figures(jobs: Sequence[Any], batch: int, steps: int) -> tuple[Figure, ...]:
    """Return the figures of diffusions of one batch each.

    ``seconds_per_picture`` is all but the model's load: the text, the steps, decoding and writing.
    ``step_pictures_per_sec`` is the steps alone, which is what the tutorial's table says.
    """
    whole = [steps / _metric(job, "step_images_per_second") for job in jobs]
    alone = [_metric(job, "denoise_step_images_per_second") for job in jobs]
    return (
        _figure(f"diffuse.seconds_per_picture@{batch}", "s", whole, jobs, lower=True),
        _figure(f"diffuse.step_pictures_per_sec@{batch}", "step-pictures/s", alone, jobs),
        _peak("diffuse", jobs, f"@{batch}"),
    )


def facts_of(jobs: Sequence[Any]) -> Mapping[str, Any]:
    """Return what the last of the jobs recorded of itself, and its device."""
    attempt = jobs[-1]["attempts"][-1]
    facts: dict[str, Any] = dict(attempt.get("facts") or {})
    return {"device": attempt.get("device"), **facts}


def interruptions(jobs: Sequence[Any]) -> list[str]:
    """Return a sentence for each job that did not run in one go."""
    return [
        f"job {job['id']} was interrupted; its number is of the last of "
        f"{len(job['attempts'])} attempts"
        for job in jobs
        if len(job["attempts"]) > 1
    ]


def _peak(table: str, jobs: Sequence[Any], at: str = "") -> Figure:
    peaks = [_metric(job, "peak_memory_bytes") for job in jobs]
    return _figure(f"{table}.peak_memory{at}", "B", peaks, jobs, lower=True)


def _metric(job: Any, name: str) -> float:
    """Return a job's number.

    Raises:
        JobError: it has none above 0; models that mflux runs measure nothing.
    """
    value = job["metrics"].get(name)
    if not value:
        raise JobError(
            f"job {job['id']} ({job['name']}) recorded no {name}",
            remedy=f"studioq logs {job['id']} shows what it did; name another model",
        )
    return float(value)


def _figure(
    key: str, unit: str, values: Sequence[float], jobs: Sequence[Any], *, lower: bool = False
) -> Figure:
    numbers = tuple(job["id"] for job in jobs)
    return Figure(key=key, unit=unit, values=tuple(values), jobs=numbers, lower_is_better=lower)
