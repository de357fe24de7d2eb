"""The worker's parts with a real engine in this process, where clocks and graces can be chosen."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemon.config import load_config
from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Claim, Ending
from daemon.ledger.states import AttemptState, JobState
from daemon.models import ModelRoots
from workers.engine.handle import EngineProcess
from workers.keeper import EngineKeeper
from workers.main import make_worker
from workers.recorder import Recorder
from workers.runner import Graces, Runner

# tests/integration/conftest.py's class of that name; test modules cannot import each other.
Home = Any
MakeRunner = Callable[..., Runner]


@pytest.fixture
def make_runner(home: Home) -> Iterator[MakeRunner]:
    """Make a runner with chosen graces and ``silence``, the seconds after which an engine hangs."""
    made: list[Runner] = []

    def spawn() -> EngineProcess:
        return EngineProcess.spawn(
            locks=home.folder / "locks",
            log=home.paths.logs / "engine.log",
            environment=home.environment,
        )

    def _make(graces: Graces | None = None, silence: float = 60.0) -> Runner:
        runner = Runner(
            ledger=home.ledger,
            paths=home.paths,
            roots=ModelRoots([home.paths.models]),
            keeper=EngineKeeper(spawn=spawn, silence=silence),
            recorder=Recorder(home.ledger, home.paths, clock=time.monotonic, now=time.time),
            clock=time.monotonic,
            now=time.time,
            graces=graces or Graces(),
        )
        made.append(runner)
        tick_until(home, runner, lambda: runner.keeper.ready)
        return runner

    yield _make
    for runner in made:
        runner.keeper.close()
        runner.recorder.close()


def claim(home: Home, number: int) -> Claim:
    with home.ledger.writing() as session:
        claimed = attempts.claim(session, number, worker="w", device="cpu", now=time.time())
    assert claimed is not None
    return claimed


def tick_until(home: Home, runner: Runner, condition: Callable[[], Any]) -> None:
    """Tick until ``condition`` holds."""

    def look() -> Any:
        runner.tick(0.1)
        return condition()

    home.until(look)


def run(home: Home, runner: Runner) -> None:
    """Tick until every attempt has its ending in the ledger."""
    tick_until(home, runner, lambda: not runner.table)


def last_attempt(home: Home, number: int) -> Any:
    return home.attempts(number)[-1]


def test_a_deaf_job_over_its_limit_costs_the_engine(home: Home, make_runner: MakeRunner) -> None:
    runner = make_runner(Graces(cancel=0.3))
    engine = runner.keeper.pid
    limited = {"time_limit_seconds": 0.2}
    number = home.submit(deaf=True, steps=1, step_seconds=600.0, options=limited)
    runner.start(claim(home, number))
    run(home, runner)
    assert last_attempt(home, number).state == AttemptState.TIMED_OUT
    assert home.job(number).error["code"] == "timed_out"
    tick_until(home, runner, lambda: runner.keeper.ready)
    assert runner.keeper.pid != engine


def test_a_deaf_job_is_cancelled_by_the_engines_end(home: Home, make_runner: MakeRunner) -> None:
    runner = make_runner(Graces(cancel=0.3))
    number = home.submit(deaf=True, steps=1, step_seconds=600.0)
    runner.start(claim(home, number))
    home.wish(jobs.cancel, number)
    run(home, runner)
    assert home.job(number).state == JobState.CANCELLED


def test_a_second_signal_ends_a_deaf_job_and_queues_it(home: Home, make_runner: MakeRunner) -> None:
    runner = make_runner()
    number = home.submit(deaf=True, steps=1, step_seconds=600.0)
    runner.start(claim(home, number))
    runner.tick(0.1)
    runner.stop()
    runner.hurry()
    run(home, runner)
    assert last_attempt(home, number).state == AttemptState.STOPPED
    assert home.job(number).state == JobState.QUEUED
    assert home.job(number).interruptions == 0


def test_a_silent_engine_is_killed_and_replaced(home: Home, make_runner: MakeRunner) -> None:
    runner = make_runner(silence=10.0)
    engine = runner.keeper.pid
    assert engine is not None
    number = home.submit(steps=100_000, step_seconds=0.02)
    runner.start(claim(home, number))
    tick_until(home, runner, lambda: home.job(number).progress_done > 0)
    os.kill(engine, signal.SIGSTOP)
    run(home, runner)
    assert last_attempt(home, number).state == AttemptState.INTERRUPTED
    assert home.job(number).state == JobState.QUEUED
    tick_until(home, runner, lambda: runner.keeper.ready)
    assert runner.keeper.pid != engine


def test_a_fenced_attempt_is_stopped_and_writes_nothing(
    home: Home, make_runner: MakeRunner
) -> None:
    runner = make_runner()
    number = home.submit(steps=100_000, step_seconds=0.02)
    claimed = claim(home, number)
    runner.start(claimed)
    tick_until(home, runner, lambda: home.job(number).progress_done > 0)
    with home.ledger.writing() as session:
        ending = Ending(state=AttemptState.INTERRUPTED, reason="taken away")
        attempts.end(session, claimed.fence, ending, now=time.time())
    done = home.job(number).progress_done
    run(home, runner)
    assert home.job(number).progress_done == done
    assert last_attempt(home, number).reason == "taken away"
    again = home.submit(steps=1)
    runner.start(claim(home, again))
    run(home, runner)
    assert home.job(again).state == JobState.SUCCEEDED


def test_two_attempts_can_live_in_one_engine(home: Home, make_runner: MakeRunner) -> None:
    runner = make_runner()
    numbers = [home.submit(steps=20, step_seconds=0.02, checkpoint_every=5) for _ in range(2)]
    for number in numbers:
        runner.start(claim(home, number))
    assert len(runner.table) == 2
    run(home, runner)
    for number in numbers:
        assert home.job(number).state == JobState.SUCCEEDED
        assert home.job(number).progress_done == 20


def test_a_job_that_kills_its_engine_again_and_again_fails(
    home: Home, make_runner: MakeRunner
) -> None:
    runner = make_runner()
    number = home.submit(steps=100_000, step_seconds=0.02)
    for _ in range(3):
        tick_until(home, runner, lambda: runner.keeper.ready)
        runner.start(claim(home, number))
        runner.tick(0.1)
        runner.keeper.kill()
        run(home, runner)
    assert home.job(number).state == JobState.FAILED
    assert home.job(number).error["code"] == "interrupted"


@pytest.mark.parametrize(
    ("count", "attempt", "job"),
    [
        (1, AttemptState.OUT_OF_MEMORY, JobState.FAILED),
        (2, AttemptState.INTERRUPTED, JobState.QUEUED),
    ],
)
def test_an_abort_for_want_of_memory_fails_the_job_that_was_alone(
    home: Home, make_runner: MakeRunner, count: int, attempt: AttemptState, job: JobState
) -> None:
    runner = make_runner()
    numbers = [home.submit(steps=100_000, step_seconds=0.02) for _ in range(count)]
    for number in numbers:
        runner.start(claim(home, number))
    with (home.paths.logs / "engine.log").open("a", encoding="utf-8") as log:
        log.write("[METAL] Command buffer execution failed: Insufficient Memory (00000008)\n")
    assert runner.keeper.pid is not None
    os.kill(runner.keeper.pid, signal.SIGABRT)
    run(home, runner)
    assert {last_attempt(home, number).state for number in numbers} == {attempt}
    assert {home.job(number).state for number in numbers} == {job}
    if count == 1:
        error = home.job(numbers[0]).error
        assert (error["code"], bool(error["remedy"])) == ("out_of_memory", True)


def test_a_wish_to_finish_is_obeyed_by_the_next_attempt(
    home: Home, make_runner: MakeRunner
) -> None:
    runner = make_runner()
    number = home.submit(steps=100_000, step_seconds=0.02)
    runner.start(claim(home, number))
    home.wish(jobs.finish, number)
    runner.keeper.kill()
    run(home, runner)
    assert last_attempt(home, number).state == AttemptState.INTERRUPTED
    tick_until(home, runner, lambda: runner.keeper.ready)
    runner.start(claim(home, number))
    run(home, runner)
    job = home.job(number)
    assert (job.state, job.wish, job.progress_done < 1_000) == (JobState.SUCCEEDED, None, True)


def test_a_claim_without_an_engine_goes_back_to_the_queue(
    home: Home, make_runner: MakeRunner
) -> None:
    runner = make_runner()
    number = home.submit(steps=1)
    runner.keeper.kill()
    tick_until(home, runner, lambda: not runner.keeper.ready)
    runner.start(claim(home, number))
    run(home, runner)
    assert last_attempt(home, number).state == AttemptState.STOPPED
    assert home.job(number).state == JobState.QUEUED


def test_an_attempt_that_was_claimed_and_lost_is_taken_up_first(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    worker = make_worker(home.paths, load_config(home.paths))
    first, lost = home.submit(steps=1), home.submit(steps=1)
    with home.ledger.writing() as session:
        attempts.claim(session, lost, worker=worker.name, device="cpu", now=time.time())
    worker._unsure = True

    def has_succeeded(number: int) -> bool:
        worker._turn()
        return bool(home.job(number).state == JobState.SUCCEEDED)

    try:
        home.until(lambda: has_succeeded(lost))
        home.until(lambda: has_succeeded(first))
        assert home.attempts(first)[0].started_at >= home.attempts(lost)[0].ended_at
    finally:
        worker._leave()
