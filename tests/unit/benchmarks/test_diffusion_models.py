from __future__ import annotations

import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import mlx.core as mx
import pytest

from benchmarks.diffusion_models import random_subject
from benchmarks.mlx_diffusion import StudioqDenoising
from benchmarks.rates import Plan, measure
from benchmarks.side_work import Encoding, SideWork, Sorting, TokenizingBeside, TokenizingBetween
from workers.diffusion import autoencode

ROOT = Path(__file__).parents[3]


def test_random_weights_run_through_the_loop_of_jobs() -> None:
    own = StudioqDenoising(random_subject("shapes", mx.float32), (64, 64), steps=2)
    ticks = count()
    (cell,) = measure([own], 2, Plan(steps=2, rounds=2), lambda: float(next(ticks)))
    assert cell.samples == (4.0, 4.0)
    assert cell.failure is None
    assert own.finite
    assert own.rows == 2


def test_work_beside_the_steps_can_be_done_again() -> None:
    model = random_subject("shapes", mx.float32).model
    decoded = autoencode.decode(model.vae, mx.zeros((2, 4, 4, 4)))
    works: list[SideWork] = [
        TokenizingBetween(model, 1),
        TokenizingBeside(model, 1),
        Encoding(decoded, 2),
        Sorting(decoded, 2),
    ]
    for work in works:
        for _ in range(2):
            work.begin()
            for index in range(3):
                work.part(index, 3)
            work.finish()
    assert [work.amount for work in works][:3] == ["100 prompts", "100 prompts", "4 PNG files"]


@pytest.mark.parametrize("module", ["mlx_diffusion", "side_work", "torch_diffusion"])
def test_benchmarks_of_diffusion_need_no_daemon(module: str) -> None:
    code = f"import benchmarks.{module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout))
    assert not loaded & {"sqlalchemy", "redis", "rq", "fastapi", "torch", "diffusers", "pydantic"}
