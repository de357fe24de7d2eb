"""A tiny model in the form of ``shapes``, and the run of two steps that it comes of."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest

from workers.shapes import stages
from workers.shapes.optimizer import Rates
from workers.shapes.sizes import SMALL
from workers.shapes.stages import Plan
from workers.shapes.trainer import Options


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A run of one step in each stage."""
    plan = Plan(folder=tmp_path_factory.mktemp("run"), pool=16, sizes=SMALL, processes=1)
    options = Options(rates=Rates(learning_rate=1e-3, steps=1), batch=2)
    stages.train_vae(plan, options)
    stages.train_unet(plan, options)
    return plan


@pytest.fixture(scope="session")
def tiny_model(tiny_run: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that comes of the run."""
    folder = tmp_path_factory.mktemp("models") / "shapes"
    stages.export_model(tiny_run, folder)
    mx.clear_cache()
    return folder
