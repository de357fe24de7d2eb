from __future__ import annotations

from typing import Any

import pytest

from daemon.bench import measures
from daemon.errors import JobError


def report(step: int, it: float, tokens: float) -> list[dict[str, Any]]:
    values = {"it_per_sec": it, "tokens_per_sec": tokens, "train_loss": 1.0}
    return [{"step": step, "name": name, "value": value} for name, value in values.items()]


def job(number: int, attempts: int = 1, **metrics: float) -> dict[str, Any]:
    facts = {"model_fingerprint": "f", "device_kind": "cpu"}
    attempt = {"device": "AMD EPYC", "facts": facts}
    return {
        "id": number,
        "name": "bench",
        "attempts": [attempt] * attempts,
        "metrics": {"peak_memory_bytes": 1e9, **metrics},
    }


def test_a_trainings_rate_is_iterations_by_seconds_without_the_first_report() -> None:
    rows = [*report(5, 0.1, 1.0), *report(10, 1.0, 100.0), *report(15, 5.0, 500.0)]
    rates = measures.training_rates([{"step": 1, "name": "val_loss", "value": 3.0}, *rows])
    assert rates["it_per_sec"] == pytest.approx(10 / 6)
    assert rates["tokens_per_sec"] == pytest.approx((5 * 100 + 1 * 500) / 6)


def test_one_report_is_none_without_the_first() -> None:
    with pytest.raises(JobError, match="left 1 reports"):
        measures.training_rates(report(5, 1.0, 1.0))


def test_training_figures_have_a_value_for_each_job() -> None:
    metrics = [[*report(5, 9, 9), *report(10, 1.0, 50.0 * number)] for number in (1, 2)]
    figures = measures.training_figures([job(7), job(8)], metrics)
    assert [figure.key for figure in figures] == [
        "train.it_per_sec",
        "train.tokens_per_sec",
        "train.peak_memory",
    ]
    assert figures[1].values == (50.0, 100.0)
    assert figures[1].jobs == (7, 8)


def test_inferences_give_their_own_rate() -> None:
    rate, peak = measures.inference_figures([job(3, generation_tps=11.5)])
    assert (rate.values, rate.unit, rate.jobs) == ((11.5,), "tok/s", (3,))
    assert (peak.values, peak.lower_is_better) == ((1e9,), True)


def test_diffusions_give_seconds_of_all_and_the_rate_of_the_steps() -> None:
    done = job(4, step_images_per_second=20.0, denoise_step_images_per_second=25.0)
    whole, alone, peak = measures.diffusion_figures([done], batch=4, steps=50)
    assert (whole.key, whole.values) == ("diffuse.seconds_per_picture@4", (2.5,))
    assert (alone.key, alone.values) == ("diffuse.step_pictures_per_sec@4", (25.0,))
    assert peak.key == "diffuse.peak_memory@4"


@pytest.mark.parametrize("metrics", [{}, {"generation_tps": 0.0}])
def test_a_job_without_a_rate_is_an_error_and_no_number(metrics: dict[str, float]) -> None:
    with pytest.raises(JobError, match=r"job 3 \(bench\) recorded no generation_tps") as caught:
        measures.inference_figures([job(3, 1, **metrics)])
    assert caught.value.remedy


def test_facts_are_the_last_attempts_and_interruptions_are_told() -> None:
    jobs = [job(3), job(4, attempts=2)]
    facts = measures.facts_of(jobs)
    assert facts == {"device": "AMD EPYC", "model_fingerprint": "f", "device_kind": "cpu"}
    assert measures.interruptions(jobs) == [
        "job 4 was interrupted; its number is of the last of 2 attempts"
    ]
