"""The learning rate that the spec says is the one that is used."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import pytest

from daemon.specs import TrainSpec
from workers.language.optimizers import build_optimizer, learning_rate, updates


def make_spec(**options: Any) -> TrainSpec:
    data = {"rows": {"name": "rows.jsonl", "sha256": "0" * 64}}
    return TrainSpec.model_validate(
        {"model": "tiny", "data": data, "learning_rate": 0.5, **options}
    )


def rates(spec: TrainSpec) -> list[float]:
    rate = learning_rate(spec)
    if isinstance(rate, float):
        return [rate] * updates(spec)
    steps = [mx.array(step, mx.uint64) for step in range(updates(spec))]
    return [float(rate(step).item()) for step in steps]  # type: ignore[arg-type]


def test_a_constant_rate_is_a_number() -> None:
    assert learning_rate(make_spec()) == 0.5


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_warm_up_rises_to_the_peak_and_no_update_is_wasted(schedule: str) -> None:
    found = rates(make_spec(iters=10, warmup=4, lr_schedule=schedule))
    assert found[:5] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])
    assert min(found) > 0


def test_a_straight_line_falls_to_the_edge_of_zero() -> None:
    assert rates(make_spec(iters=5, lr_schedule="linear")) == pytest.approx(
        [0.5, 0.4, 0.3, 0.2, 0.1]
    )


def test_half_a_cosine_falls_to_the_edge_of_zero() -> None:
    expected = [0.25 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert rates(make_spec(iters=6, lr_schedule="cosine")) == pytest.approx(expected)


def test_a_schedule_counts_updates_when_gradients_are_gathered() -> None:
    spec = make_spec(iters=10, grad_accumulation=4, lr_schedule="linear")
    assert updates(spec) == 3
    assert rates(spec) == pytest.approx([0.5, 1 / 3, 1 / 6])


def test_a_warm_up_longer_than_the_training_only_rises() -> None:
    assert rates(make_spec(iters=2, warmup=8)) == pytest.approx([0.0625, 0.125])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "adafactor"])
def test_every_optimizer_moves_by_the_given_rate(name: str) -> None:
    moved: list[Any] = []
    for rate in (0.5, 0.25):
        optimizer = build_optimizer(make_spec(optimizer=name, learning_rate=rate))
        before = {"w": mx.zeros((2, 2))}
        after = optimizer.apply_gradients({"w": mx.ones((2, 2))}, before)
        moved.append(mx.abs(after["w"]).max())
    assert moved[0].item() == pytest.approx(2 * moved[1].item(), rel=1e-4)
    assert moved[0].item() > 0.1
