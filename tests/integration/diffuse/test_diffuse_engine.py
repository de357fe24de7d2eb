"""Diffusions in a real engine, with the fast matrix products that the worker gives it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.specs import DiffuseSpec
from tests.integration.diffuse.studio import HASH, SHEET, USUAL, Pixels, alike, pixels
from tests.integration.test_engine import PATIENCE, Bench
from workers.checkpoints import is_whole
from workers.diffusion.preview import PREVIEW
from workers.engine.handle import EngineProcess
from workers.events import Artifact, Checkpoint, Progress
from workers.memory_env import engine_environment
from workers.protocol import Alive, Ask, Happened, Ready

ENDLESS: dict[str, Any] = {"n_images": 1000, "batch_size": 2, "steps": 900, "preview_every": 1}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One engine for all tests, as for all jobs of a day."""
    folder = tmp_path_factory.mktemp("engine")
    process = EngineProcess.spawn(
        locks=folder / "locks",
        log=folder / "engine.log",
        environment={**engine_environment(folder / "lib"), "STUDIOQ_HOME": str(folder / "home")},
    )
    made = Bench(process=process, folder=folder, said=[])
    made.until(Ready)
    yield made
    process.kill()
    process.wait(PATIENCE)
    process.close()


class Jobs:
    """Starts diffusions on the engine."""

    def __init__(self, bench: Bench, model: Path) -> None:
        self.bench = bench
        self.model = model

    def start(self, checkpoint: Path | None = None, **options: Any) -> int:
        """Start a job and return its attempt's number."""
        attempt = 1 + sum(1 for _ in self.bench.folder.glob("attempt-*"))
        spec = DiffuseSpec(**{**USUAL, **options}).model_dump(mode="json")
        given = {"model": str(self.model)}
        if checkpoint is not None:
            given["checkpoint"] = str(checkpoint)
        self.bench.start(attempt, kind="diffuse", given=given, **spec)
        return attempt

    def folder(self, attempt: int) -> Path:
        """Return an attempt's folder."""
        return self.bench.folder / f"attempt-{attempt}"

    def run(self, **options: Any) -> int:
        """Run a job to its good end."""
        attempt = self.start(**options)
        over = self.bench.over(attempt)
        assert over.state == "succeeded", over.error
        return attempt

    def files(self, attempt: int) -> dict[str, bytes]:
        """Return what an attempt has published."""
        names: list[str] = []
        for event in self.bench.events(attempt):
            if isinstance(event, Artifact):
                names.append(event.path)
            if isinstance(event, Checkpoint):
                names += event.files
        return {name: (self.folder(attempt) / name).read_bytes() for name in names}

    def pictures(self, attempt: int) -> list[Pixels]:
        """Return an attempt's pictures."""
        return [pixels(path) for path in sorted(self.folder(attempt).glob("image-*.png"))]

    def left(self, attempt: int) -> set[str]:
        """Return the names of the files in an attempt's folder."""
        return {path.name for path in self.folder(attempt).iterdir() if path.is_file()}

    def progress(self, attempt: int) -> list[int]:
        """Return how much was reported as done; the engine may leave reports out."""
        events = self.bench.events(attempt)
        return [event.done for event in events if isinstance(event, Progress)]


@pytest.fixture
def jobs(bench: Bench, models: Callable[[str], Path]) -> Jobs:
    return Jobs(bench, models("one-block"))


def test_pictures_of_an_engine_repeat_and_do_not_depend_on_their_batch(jobs: Jobs) -> None:
    options: dict[str, Any] = {"n_images": 5, "width": 32, "height": 32, "steps": 5}
    first = jobs.run(batch_size=3, **options)
    assert jobs.files(jobs.run(batch_size=3, **options)) == jobs.files(first)
    for batch in (1, 2, "auto"):
        other = jobs.run(batch_size=batch, **options)
        assert alike(jobs.pictures(first), jobs.pictures(other))


@pytest.mark.parametrize(
    ("request_", "state"), [("cancel", "cancelled"), ("finish", "succeeded"), ("stop", "stopped")]
)
def test_a_wish_ends_a_diffusion_within_a_step(jobs: Jobs, request_: str, state: str) -> None:
    attempt = jobs.start(**ENDLESS)
    jobs.bench.progress(attempt, least=6)
    assert (jobs.folder(attempt) / PREVIEW).exists()
    jobs.bench.process.send(Ask(attempt=attempt, request=request_))
    assert jobs.bench.over(attempt).state == state
    assert jobs.progress(attempt)[-1] < 900
    assert jobs.left(attempt) == set()


@pytest.mark.parametrize("request_", ["cancel", "finish", "stop"])
def test_no_wish_loses_a_picture_that_has_all_its_steps(jobs: Jobs, request_: str) -> None:
    attempt = jobs.start(n_images=1000, batch_size=1, steps=1)
    jobs.bench.progress(attempt, least=6)
    jobs.bench.process.send(Ask(attempt=attempt, request=request_))
    jobs.bench.over(attempt)
    pictures = [name for name in jobs.files(attempt) if name != SHEET]
    assert len(jobs.pictures(attempt)) == len(pictures)
    assert jobs.progress(attempt)[-1] == 2 * len(pictures)


def test_a_stopped_diffusion_goes_on_in_another_attempt(jobs: Jobs) -> None:
    options: dict[str, Any] = {"n_images": 6, "batch_size": 1, "steps": 10, "sampler": "euler-a"}
    whole = jobs.run(**options)
    attempt = jobs.start(**options)
    jobs.bench.until(
        Happened,
        lambda message: message.attempt == attempt and isinstance(message.event, Checkpoint),
    )
    jobs.bench.process.send(Ask(attempt=attempt, request="stop"))
    over = jobs.bench.over(attempt)
    if over.state == "succeeded":
        assert jobs.files(attempt) == jobs.files(whole)
        return
    assert over.state == "stopped"
    last = [event for event in jobs.bench.events(attempt) if isinstance(event, Checkpoint)][-1]
    folder = jobs.folder(attempt) / last.folder
    assert is_whole(folder)
    resumed = jobs.run(checkpoint=folder, **options)
    assert jobs.files(resumed) == jobs.files(whole)
    assert jobs.progress(resumed)[0] > (10 + 1) * last.step


def test_two_diffusions_of_one_engine_do_not_disturb_each_other(jobs: Jobs) -> None:
    options: dict[str, Any] = {"n_images": 3, "batch_size": 1, "steps": 5, "sampler": "euler-a"}
    alone = [jobs.run(seed=seed, **options) for seed in (1, 2)]
    both = [jobs.start(seed=seed, **options) for seed in (1, 2)]
    assert [jobs.bench.over(attempt).state for attempt in both] == ["succeeded"] * 2
    assert [jobs.files(attempt) for attempt in both] == [jobs.files(each) for each in alone]


def test_a_failing_diffusion_leaves_the_engine_unharmed(jobs: Jobs, tmp_path: Path) -> None:
    before = jobs.run()
    attempt = jobs.start(steps=1000, sampler="dpm++2m")
    over = jobs.bench.over(attempt)
    assert over.state == "failed"
    assert over.error is not None
    assert "1000 steps do not fit" in over.error["message"]
    words = tmp_path / "words.png"
    words.write_text("only words")
    number = max(before, attempt) + 1
    jobs.bench.start(
        number,
        kind="diffuse",
        given={"model": str(jobs.model), "inputs": {"image": str(words)}},
        **{**USUAL, "image": {"name": "words.png", "sha256": HASH}},
    )
    assert "words.png is not a picture" in json.dumps(jobs.bench.over(number).error)
    assert jobs.files(jobs.run()) == jobs.files(before)


def test_the_engine_keeps_the_model_and_says_what_it_took(jobs: Jobs) -> None:
    attempt = jobs.run(n_images=2)
    assert jobs.bench.over(attempt).peak_memory_bytes
    warm = jobs.bench.until(Alive, lambda alive: bool(alive.models)).models
    assert warm == (str(jobs.model.resolve()),)
