"""The worker process with a real ledger, Redis and engine: what survives which fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from typing import Any

from redis import Redis
from rq.queue import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import update

from daemon.errors import ExitCode
from daemon.ledger import jobs
from daemon.ledger.revision import set_draining
from daemon.ledger.states import AttemptState, JobState
from daemon.ledger.tables import Job as JobRow
from daemon.queue.dispatch import wake_key
from daemon.queue.job import Dispatch, Job
from daemon.queue.queue import list_key
from daemon.queue.reconcile import Reconciled, reconcile

# tests/integration/conftest.py's class of that name; test modules cannot import each other.
Home = Any
LONG = {"steps": 100_000, "step_seconds": 0.02}


def ends(home: Home, number: int) -> list[str]:
    return [attempt.state for attempt in home.attempts(number)]


def test_a_job_runs_and_leaves_nothing_in_redis(home: Home) -> None:
    home.start_worker()
    number = home.submit(steps=3)
    job = home.until_state(number, JobState.SUCCEEDED)
    assert (job.progress_done, job.progress_total) == (3, 3)
    assert ends(home, number) == [AttemptState.SUCCEEDED]
    rq_id = Dispatch(ledger_id=home.ledger_id, job=number, dispatch=1).rq_id
    home.until(lambda: not home.redis.keys(f"*{rq_id}*"))
    assert home.redis.llen(list_key()) == 0


def info(home: Home) -> str:
    shown = subprocess.run(
        [sys.executable, "-m", "rq.cli", "info", "--raw", "--url", home.server.url],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout


def test_rq_info_shows_the_running_and_the_waiting(home: Home) -> None:
    home.start_worker()
    first = home.submit(**LONG)
    home.until_state(first, JobState.RUNNING)
    home.submit(steps=1)
    home.submit(steps=1)
    home.until(lambda: "queue studioq 2, 1 executing" in info(home))
    assert " busy studioq." in info(home)
    home.wish(jobs.cancel, first)
    home.until(lambda: "queue studioq 0, 0 executing" in info(home))
    home.until(lambda: "jobs: 2 finished, 1 failed" in info(home))


def test_a_killed_engine_resumes_from_the_last_checkpoint(home: Home) -> None:
    home.start_worker()
    number = home.submit(steps=120, step_seconds=0.02, checkpoint_every=20)
    home.until_step(number, 40)
    os.kill(home.engine_pid(), signal.SIGKILL)
    home.until_state(number, JobState.SUCCEEDED)
    first, second = home.attempts(number)
    assert first.state == AttemptState.INTERRUPTED
    assert "SIGKILL" in str(first.reason)
    assert second.resumed_step is not None
    assert second.resumed_step >= 40
    log = home.paths.log(number).read_text(encoding="utf-8")
    assert f"— attempt 2, from step {second.resumed_step} —" in log


def test_sigterm_lets_the_job_write_a_checkpoint_and_queues_it(home: Home) -> None:
    worker = home.start_worker()
    number = home.submit(checkpoint_every=1_000, **LONG)
    home.until_step(number, 5)
    worker.terminate()
    assert worker.wait() == ExitCode.OK
    assert home.job(number).state == JobState.QUEUED
    assert ends(home, number) == [AttemptState.STOPPED]
    assert home.worker_rows()[-1].ended_at is not None
    assert not home.redis.smembers("rq:workers")


def test_a_second_worker_is_refused(home: Home) -> None:
    first = home.start_worker()
    home.engine_pid()
    second = home.start_worker()
    assert second.wait() == ExitCode.USAGE
    assert f"process {first.pid}" in home.narration.read_text(encoding="utf-8")


def test_a_new_worker_takes_over_from_a_killed_one(home: Home) -> None:
    first = home.start_worker()
    number = home.submit(steps=150, step_seconds=0.02, checkpoint_every=20)
    home.until_step(number, 41)  # the checkpoint of step 40 is recorded before it
    first.kill()
    first.wait()
    home.start_worker()
    home.until_state(number, JobState.SUCCEEDED)
    attempts = home.attempts(number)
    assert [attempt.state for attempt in attempts] == ["interrupted", "succeeded"]
    assert attempts[1].resumed_step >= 40
    assert home.job(number).gpu_seconds > 0


def test_a_job_outlives_redis(home: Home) -> None:
    home.start_worker()
    number = home.submit(steps=60, step_seconds=0.02)
    home.until_state(number, JobState.RUNNING)
    home.server.kill()
    unannounced = home.submit(announce=False, steps=2)
    home.until_state(number, JobState.SUCCEEDED)
    home.until_state(unannounced, JobState.SUCCEEDED)
    home.server.start()
    home.until_state(home.submit(steps=1), JobState.SUCCEEDED)
    assert len(home.attempts(number)) == 1


def test_jobs_run_while_redis_hangs(home: Home) -> None:
    home.start_worker()
    home.engine_pid()
    os.kill(home.server.pid, signal.SIGSTOP)
    try:
        number = home.submit(announce=False, steps=20, step_seconds=0.02)
        home.until_state(number, JobState.SUCCEEDED)
    finally:
        os.kill(home.server.pid, signal.SIGCONT)
    home.until_state(home.submit(steps=1), JobState.SUCCEEDED)


def test_a_flushed_redis_is_filled_again(home: Home) -> None:
    numbers = [home.submit(steps=1) for _ in range(3)]
    home.redis.flushall()

    def queued() -> list[tuple[int, int]]:
        with home.ledger.reading() as session:
            return list(jobs.queued_dispatches(session))

    assert reconcile(home.redis, home.ledger_id, queued) == Reconciled(added=3)
    home.start_worker()
    for number in numbers:
        home.until_state(number, JobState.SUCCEEDED)


def test_forged_jobs_do_nothing(home: Home) -> None:
    mark = home.folder / "forged"
    forge(home.redis, home.ledger_id, f"touch {mark}")
    home.start_worker()
    number = home.submit(steps=1)
    home.redis.rpush(
        list_key(), *[Dispatch(ledger_id=home.ledger_id, job=number, dispatch=1).rq_id] * 3
    )
    home.until_state(number, JobState.SUCCEEDED)
    other = home.submit(steps=1)
    home.until_state(other, JobState.SUCCEEDED)
    assert not mark.exists()
    assert ends(home, number) == [AttemptState.SUCCEEDED]
    assert home.workers[0].poll() is None


def forge(redis: Redis, ledger_id: str, command: str) -> None:
    """Put everything on the queue that a stock RQ worker would run, fetch, or die of."""
    stock = Queue("studioq", connection=redis, serializer=JSONSerializer)
    stock.enqueue("os.system", command)
    fields: dict[Any, Any] = {
        "data": zlib.compress(json.dumps(["os.system", None, [command], {}]).encode()),
        "success_callback_name": "os.abort",
        "webhooks": json.dumps([{"url": "http://192.0.2.1/", "job_status": "finished"}]),
    }
    for number in range(900, 905):
        rq_id = Dispatch(ledger_id=ledger_id, job=number, dispatch=1).rq_id
        redis.hset(Job.key_for(rq_id), mapping=fields)
        redis.rpush(list_key(), rq_id)
    redis.hset(Job.key_for(f"{ledger_id}-906-1"), "data", b"\xff")
    redis.rpush(list_key(), f"{ledger_id}-906-1", b"\xff\xfe")
    redis.set(wake_key(ledger_id), "no list")


def test_wishes_and_limits_end_a_job_at_its_next_step(home: Home) -> None:
    home.start_worker()
    engine = home.engine_pid()
    cancelled, finished = home.submit(**LONG), home.submit(**LONG)
    limited = home.submit(options={"time_limit_seconds": 0.3}, **LONG)
    for number, change in ((cancelled, jobs.cancel), (finished, jobs.finish)):
        home.until_step(number, 3)
        home.wish(change, number)
    assert home.until_state(cancelled, JobState.CANCELLED).progress_done < 1_000
    assert home.until_state(finished, JobState.SUCCEEDED).progress_done < 1_000
    error = home.until_state(limited, JobState.FAILED).error
    assert error is not None
    assert (error["code"], "limit of 0.3 s" in error["message"]) == ("timed_out", True)
    assert "--time-limit" in str(error["remedy"])
    assert ends(home, limited) == [AttemptState.TIMED_OUT]
    assert home.engine_pid() == engine


def test_nothing_starts_while_draining(home: Home) -> None:
    with home.ledger.writing() as session:
        set_draining(session, True)
    home.start_worker()
    home.engine_pid()
    number = home.submit(steps=1)
    home.until(lambda: home.redis.llen(wake_key(home.ledger_id)) == 0)
    assert home.job(number).state == JobState.QUEUED
    with home.ledger.writing() as session:
        set_draining(session, False)
    home.until_state(number, JobState.SUCCEEDED)


UNRUNNABLE: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "no-such-model"}, "model", "no-such-model"),
    ({"steps": 3, "fail_at": 2}, "job_failed", "step 2"),
]


def test_jobs_that_cannot_run_fail_clearly(home: Home) -> None:
    home.start_worker()
    for spec, code, word in UNRUNNABLE:
        error = home.until_state(home.submit(**spec), JobState.FAILED).error
        assert error is not None
        assert error["code"] == code
        assert word in error["message"]
    home.until_state(home.submit(steps=1), JobState.SUCCEEDED)


def test_a_worker_waits_for_the_gpu_of_another_home(home: Home) -> None:
    home.start_worker()
    home.engine_pid()
    other = type(home)(home.folder / "other", home.server)
    other.folder = home.folder
    try:
        other.start_worker()
        other.until(
            lambda: [row for row in other.worker_rows() if row.engine["state"] == "waiting"]
        )
        assert f"home {home.paths.home}" in str(other.worker_rows()[-1].engine["reason"])
        number = other.submit(steps=1)
        home.until_state(home.submit(steps=1), JobState.SUCCEEDED)
        assert other.job(number).state == JobState.QUEUED
        home.workers[0].terminate()
        other.until_state(number, JobState.SUCCEEDED)
    finally:
        other.close()


def test_a_job_that_cannot_be_prepared_stops_nobody(home: Home) -> None:
    blocked = home.submit(announce=False, steps=1)
    home.paths.job(blocked).write_bytes(b"not a folder")
    outdated = home.submit(announce=False, steps=1)
    with home.ledger.writing() as session:
        changed = {"seed": 1, "steps": "many"}
        session.execute(update(JobRow).where(JobRow.id == outdated).values(spec=changed))
    behind = home.submit(steps=1)
    home.start_worker()
    home.until_state(behind, JobState.SUCCEEDED)
    for number, code, word in (
        (blocked, "job_failed", "prepared"),
        (outdated, "spec_refused", "steps"),
    ):
        error = home.job(number).error
        assert error is not None
        assert (error["code"], word in error["message"]) == (code, True)
        assert ends(home, number) == [AttemptState.FAILED]
    assert "Traceback" in (home.paths.logs / "worker.log").read_text(encoding="utf-8")
