"""Records of runs made up for the tests: a CPU and its figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daemon.bench.record import Figure, Machine, Record, Result


def figure(key: str, *values: float, unit: str = "tok/s", lower: bool = False) -> Figure:
    """A figure whose jobs are numbered from 1."""
    jobs = tuple(range(1, len(values) + 1))
    return Figure(key=key, unit=unit, values=values, jobs=jobs, lower_is_better=lower)


def training(*rates: float, **options: Any) -> Result:
    """The result of trainings with these tokens per second."""
    figures = (
        figure("train.it_per_sec", *(rate / 200 for rate in rates), unit="it/s"),
        figure("train.tokens_per_sec", *rates),
        figure("train.peak_memory", *(9e8 for _ in rates), unit="B", lower=True),
    )
    settings = {"iters": 40, "rank": 8}
    return Result(table="train", model="small", settings=settings, figures=figures, **options)


def decoding(*rates: float, weights: int | None = 500_000_000, **options: Any) -> Result:
    """The result of inferences of a model of so many bytes."""
    facts = {} if weights is None else {"decode_weight_bytes": weights}
    figures = (figure("infer.tokens_per_sec", *rates),)
    return Result(table="infer", model="small", facts=facts, figures=figures, **options)


def pictures(**rates: float) -> Result:
    """The result of diffusions: ``b4=2.5`` is 2.5 seconds a picture at batch 4."""
    figures = []
    for name, seconds in rates.items():
        batch = int(name.removeprefix("b"))
        figures += [
            figure(f"diffuse.seconds_per_picture@{batch}", seconds, unit="s", lower=True),
            figure(f"diffuse.step_pictures_per_sec@{batch}", 25 / seconds, unit="step-pictures/s"),
            figure(f"diffuse.peak_memory@{batch}", 1e9 * batch, unit="B", lower=True),
        ]
    settings = {"steps": 25, "cfg": 7.5}
    return Result(table="diffuse", model="brush", settings=settings, figures=tuple(figures))


def twice(result: Result) -> Result:
    """The result of twice as many jobs, with the same numbers."""
    figures = (replace(each, values=each.values * 2) for each in result.figures)
    return replace(result, figures=tuple(figures))


def record(*results: Result, **machine: Any) -> Record:
    """A run on a CPU that reads 20 GB/s."""
    given: dict[str, Any] = {
        "kind": "cpu",
        "processors": 2,
        "bandwidth": 20e9,
        "bandwidth_source": "measured",
    }
    given |= {"device": "AMD EPYC", "versions": {"mlx": "0.32.4"}, **machine}
    return Record(
        date="2026-11-25T18:00:00+00:00",
        machine=Machine(**given),
        results=results,
    )
