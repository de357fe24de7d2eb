"""The main job with the real model: train an adapter, use it, fetch it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.acceptance.conftest import Home
else:
    Home = Any

QUESTION = "table: t-40\ncolumns: name, built\nQ: When was ship 40 built?\nA:"


@pytest.fixture(scope="module")
def model(home: Home, smollm2: Path) -> str:
    """The real model's name; its file is a link to the one in the tests' cache."""
    folder = home.folder / "home" / "models" / "smollm2"
    folder.mkdir()
    for file in (smollm2 if smollm2.is_dir() else smollm2.parent).glob("*.gguf"):
        os.link(file, folder / file.name)
    return "smollm2"


@pytest.fixture(scope="module")
def trained(home: Home, model: str, sql_rows: Path) -> Any:
    """A finished training."""
    number = home.submit(
        *("train", "--model", model, "--data", sql_rows, "--iters", "12", "--batch-size", "2"),
        *("--num-layers", "8", "--learning-rate", "5e-4", "--steps-per-report", "3", "--test"),
        *("--steps-per-eval", "6", "--val-batches", "1", "--save-every", "6", "--seed", "1"),
        *("--sample-prompt", QUESTION, "--name", "ships"),
    )
    return home.wait(number)


def test_the_training_succeeds_and_learns(home: Home, trained: Any) -> None:
    assert trained["state"] == "succeeded", (trained, home.tails())
    log = home.run("logs", str(trained["id"])).stdout
    losses = [
        float(line.split("Train loss ")[1].split(",")[0])
        for line in log.splitlines()
        if "Train loss" in line
    ]
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2
    assert "Test loss" in log


def test_everything_can_be_fetched(home: Home, trained: Any, tmp_path: Path) -> None:
    number = str(trained["id"])
    home.run("fetch", number, "--to", tmp_path)
    names = {path.name for path in tmp_path.rglob("*")}
    assert {"adapters.safetensors", "adapter_config.json", "loss.png", "metrics.jsonl"} <= names
    with Image.open(next(tmp_path.rglob("loss.png"))) as picture:
        assert min(picture.size) > 400
    metrics = next(tmp_path.rglob("metrics.jsonl"))
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert any("train_loss" in row for row in rows)
    assert any("val_loss" in row for row in rows)


def test_the_adapter_changes_the_answer(home: Home, trained: Any, model: str) -> None:
    base = ("infer", "--model", model, "--prompt", QUESTION, "--max-tokens", "16", "--follow")
    without = home.run(*base, "--raw").stdout
    tuned = home.run(*base, "--raw", "--adapter", f"job:{trained['id']}").stdout
    assert "SELECT" not in without
    assert tuned.strip().startswith("SELECT")
    assert "FROM" in tuned


def test_a_second_inference_loads_nothing(home: Home, model: str) -> None:
    words = ("infer", "--model", model, "--prompt", "Say hi.", "--max-tokens", "2")
    home.wait(home.submit(*words))
    second = home.wait(home.submit(*words))
    assert second["state"] == "succeeded"
    assert second["metrics"]["load_seconds"] == 0


def test_a_checkpoint_is_an_adapter(home: Home, trained: Any, model: str) -> None:
    job = home.wait(
        home.submit(
            *("infer", "--model", model, "--adapter", f"job:{trained['id']}@6"),
            *("--prompt", QUESTION, "--raw", "--max-tokens", "8"),
        )
    )
    assert job["state"] == "succeeded", job
