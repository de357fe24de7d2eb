"""Whatever dies in mid-training, the job succeeds, with the bytes of an uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Home
else:
    Home = Any


def submit_training(home: Home, tiny: str, rows: Path) -> int:
    """Submit a training of some seconds."""
    return home.submit(
        *("train", "--model", tiny, "--data", rows, "--iters", "150", "--save-every", "10"),
        *("--batch-size", "1", "--dropout", "0.1", "--seed", "7", "--learning-rate", "1e-4"),
    )


def start_training(home: Home, tiny: str, rows: Path) -> int:
    """Submit the training and return when its first checkpoint is written."""
    number = submit_training(home, tiny, rows)
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
def undisturbed(home: Home, tiny: str, sql_rows: Path) -> dict[str, Any]:
    """The same training, run without an interruption."""
    job: dict[str, Any] = home.wait(submit_training(home, tiny, sql_rows))
    assert [attempt["state"] for attempt in job["attempts"]] == ["succeeded"], (job, home.tails())
    return job


@pytest.mark.parametrize(
    "victims",
    [("engine",), ("worker",), ("worker", "engine"), ("daemon",), ("redis",), ("daemon", "redis")],
    ids="+".join,
)
def test_a_training_survives_the_death_of(
    home: Home, tiny: str, sql_rows: Path, victims: tuple[str, ...], undisturbed: dict[str, Any]
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
    assert adapter_hash(job) == adapter_hash(undisturbed)


def test_a_training_survives_a_power_cut(
    home: Home, tiny: str, sql_rows: Path, undisturbed: dict[str, Any]
) -> None:
    number = start_training(home, tiny, sql_rows)
    home.kill("daemon", "worker", "engine", "redis")
    home.run("daemon", "start")
    job = home.wait(number)
    assert job["state"] == "succeeded", (job, home.tails())
    assert adapter_hash(job) == adapter_hash(undisturbed)


def test_stop_lets_a_training_checkpoint_and_start_goes_on(
    home: Home, tiny: str, sql_rows: Path, undisturbed: dict[str, Any]
) -> None:
    number = start_training(home, tiny, sql_rows)
    home.run("daemon", "stop")
    home.run("daemon", "start")
    job = home.wait(number)
    assert job["state"] == "succeeded", (job, home.tails())
    assert [attempt["state"] for attempt in job["attempts"]] == ["stopped", "succeeded"]
    assert adapter_hash(job) == adapter_hash(undisturbed)


def test_a_repeated_training_is_identical(home: Home, undisturbed: dict[str, Any]) -> None:
    again = home.wait(int(home.run("repeat", str(undisturbed["id"])).stdout))
    assert again["state"] == "succeeded", (again, home.tails())
    assert again["identical"] is True
    assert adapter_hash(again) == adapter_hash(undisturbed)
