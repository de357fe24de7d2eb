"""Whatever dies in mid-training, the job succeeds, with the bytes of an uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Home
else:
    Home = Any


def start_training(home: Home, tiny: str, rows: Path) -> int:
    """Submit a training of some seconds and return when its first checkpoint is written."""
    number = home.submit(
        *("train", "--model", tiny, "--data", rows, "--iters", "150", "--save-every", "10"),
        *("--batch-size", "1", "--dropout", "0.1", "--seed", "7", "--learning-rate", "1e-4"),
    )
    home.until(lambda: any(item["step"] for item in artifacts(home, number)))
    return number


def artifacts(home: Home, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"step": None, **item} for item in home.job(number)["artifacts"]]
    return found


def adapter_hash(job: dict[str, Any]) -> str:
    return next(
        str(item["sha256"]) for item in job["artifacts"] if item["name"] == "adapters.safetensors"
    )


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, str]:
    """The adapter's hash of a run that nothing interrupted, filled by the first test that asks."""
    return {}


@pytest.mark.parametrize(
    "victims",
    [("engine",), ("worker",), ("worker", "engine"), ("daemon",), ("redis",), ("daemon", "redis")],
    ids="+".join,
)
def test_a_training_survives_the_death_of(
    home: Home, tiny: str, sql_rows: Path, victims: tuple[str, ...], undisturbed: dict[str, str]
) -> None:
    number = start_training(home, tiny, sql_rows)
    home.kill(*victims)
    if "daemon" in victims:
        home.run("daemon", "start")
    job = home.wait(number)
    assert job["state"] == "succeeded", (job, home.tails())
    ends = [attempt["state"] for attempt in job["attempts"]]
    interrupted = {"engine", "worker"} & set(victims)
    assert ends == (["interrupted", "succeeded"] if interrupted else ["succeeded"])
    if not undisturbed:
        again = home.wait(int(home.run("repeat", str(number)).stdout))
        assert again["identical"] is True
        undisturbed["adapter"] = adapter_hash(again)
    assert adapter_hash(job) == undisturbed["adapter"]


def test_a_training_survives_a_power_cut(
    home: Home, tiny: str, sql_rows: Path, undisturbed: dict[str, str]
) -> None:
    number = start_training(home, tiny, sql_rows)
    home.kill("daemon", "worker", "engine", "redis")
    home.run("daemon", "start")
    job = home.wait(number)
    assert job["state"] == "succeeded", (job, home.tails())
    if undisturbed:
        assert adapter_hash(job) == undisturbed["adapter"]


def test_stop_lets_a_training_checkpoint_and_start_goes_on(
    home: Home, tiny: str, sql_rows: Path
) -> None:
    number = start_training(home, tiny, sql_rows)
    home.run("daemon", "stop")
    home.run("daemon", "start")
    job = home.wait(number)
    assert job["state"] == "succeeded", (job, home.tails())
    assert [attempt["state"] for attempt in job["attempts"]] == ["stopped", "succeeded"]
