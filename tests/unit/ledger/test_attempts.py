"""The life of an attempt, and what its end makes of the job."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from daemon import defaults
from daemon.errors import StaleAttemptError
from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Claim, Ending, File
from daemon.ledger.states import AttemptState, JobState, Wish
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Artifact, Attempt, Job, Metric
from daemon.ledger.users import usage_by_user

NOW = 1_000_000.0
Submit = Callable[..., int]
WEIGHTS = File(name="adapters.safetensors", kind="adapter", bytes=3, sha256="a" * 64)


def claim(ledger: Ledger, number: int) -> Claim:
    with ledger.writing() as session:
        taken = attempts.claim(session, number, worker="w1", device="cpu", now=NOW)
    assert taken is not None
    return taken


def end(ledger: Ledger, fence: int, state: AttemptState, **rest: object) -> JobState:
    with ledger.writing() as session:
        ending = Ending(state=state, reason="why", **rest)  # type: ignore[arg-type]
        return attempts.end(session, fence, ending, now=NOW + 5)


def test_a_job_is_claimed_once(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    taken = claim(ledger, number)
    assert (taken.job_id, taken.number, taken.kind) == (number, 1, "noop")
    with ledger.writing() as session:
        assert attempts.claim(session, number, worker="w2", device=None, now=NOW) is None


def test_the_ledger_itself_refuses_two_live_attempts(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    claim(ledger, number)
    with pytest.raises(IntegrityError), ledger.writing() as session:
        session.add(
            Attempt(job_id=number, number=2, state="running", worker="w2", started_at=NOW, facts={})
        )


@pytest.mark.parametrize(
    ("ending", "job"),
    [
        (AttemptState.SUCCEEDED, JobState.SUCCEEDED),
        (AttemptState.FAILED, JobState.FAILED),
        (AttemptState.CANCELLED, JobState.CANCELLED),
        (AttemptState.TIMED_OUT, JobState.FAILED),
        (AttemptState.OUT_OF_MEMORY, JobState.FAILED),
        (AttemptState.STOPPED, JobState.QUEUED),
        (AttemptState.PREEMPTED, JobState.QUEUED),
        (AttemptState.INTERRUPTED, JobState.QUEUED),
    ],
)
def test_what_an_ending_makes_of_the_job(
    ledger: Ledger, submit: Submit, ending: AttemptState, job: JobState
) -> None:
    assert end(ledger, claim(ledger, submit()).fence, ending) == job


def test_an_ended_attempt_can_write_nothing(ledger: Ledger, submit: Submit) -> None:
    fence = claim(ledger, submit()).fence
    end(ledger, fence, AttemptState.INTERRUPTED)
    with pytest.raises(StaleAttemptError), ledger.writing() as session:
        attempts.report_progress(session, fence, done=1, total=2, eta_seconds=None)
    with pytest.raises(StaleAttemptError), ledger.writing() as session:
        attempts.report_metrics(session, fence, [(1, "loss", 1.0, NOW)])
    with pytest.raises(StaleAttemptError), ledger.writing() as session:
        attempts.add_checkpoint(session, fence, step=1, folder="c", files=[WEIGHTS], now=NOW)
    with pytest.raises(StaleAttemptError):
        end(ledger, fence, AttemptState.SUCCEEDED, files=[WEIGHTS])
    with ledger.reading() as session:
        assert session.scalars(select(Artifact)).all() == []
        assert session.scalars(select(Metric)).all() == []


def test_only_a_success_publishes_its_files(ledger: Ledger, submit: Submit) -> None:
    end(ledger, claim(ledger, submit()).fence, AttemptState.FAILED, files=[WEIGHTS])
    with ledger.reading() as session:
        assert session.scalars(select(Artifact)).all() == []
    end(ledger, claim(ledger, submit()).fence, AttemptState.SUCCEEDED, files=[WEIGHTS])
    with ledger.reading() as session:
        assert [row.name for row in session.scalars(select(Artifact))] == ["adapters.safetensors"]


def test_a_checkpoints_files_are_there_whatever_becomes_of_the_job(
    ledger: Ledger, submit: Submit
) -> None:
    fence = claim(ledger, submit()).fence
    with ledger.writing() as session:
        attempts.add_checkpoint(session, fence, step=7, folder="c/7", files=[WEIGHTS], now=NOW)
    end(ledger, fence, AttemptState.FAILED)
    with ledger.reading() as session:
        assert session.scalars(select(Artifact)).one().kind == "adapter"


def test_too_many_interruptions_without_a_checkpoint_fail_the_job(
    ledger: Ledger, submit: Submit
) -> None:
    number = submit()
    for _ in range(defaults.MAX_INTERRUPTIONS - 1):
        fence = claim(ledger, number).fence
        assert end(ledger, fence, AttemptState.INTERRUPTED) == JobState.QUEUED
    fence = claim(ledger, number).fence
    assert end(ledger, fence, AttemptState.INTERRUPTED) == JobState.FAILED
    with ledger.reading() as session:
        error = session.get_one(Job, number).error
        assert error is not None
        assert "why" in error["message"]


def test_a_checkpoint_starts_the_count_of_interruptions_anew(
    ledger: Ledger, submit: Submit
) -> None:
    number = submit()
    for step in range(2 * defaults.MAX_INTERRUPTIONS):
        fence = claim(ledger, number).fence
        with ledger.writing() as session:
            attempts.add_checkpoint(session, fence, step=step, folder=str(step), files=[], now=NOW)
        assert end(ledger, fence, AttemptState.INTERRUPTED) == JobState.QUEUED


def test_orderly_stops_are_not_counted(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    for _ in range(3 * defaults.MAX_INTERRUPTIONS):
        fence = claim(ledger, number).fence
        assert end(ledger, fence, AttemptState.STOPPED) == JobState.QUEUED


def test_a_failed_job_with_retries_is_queued_again(ledger: Ledger, submit: Submit) -> None:
    number = submit(retries=1)
    assert end(ledger, claim(ledger, number).fence, AttemptState.FAILED) == JobState.QUEUED
    assert end(ledger, claim(ledger, number).fence, AttemptState.FAILED) == JobState.FAILED


def test_a_cancelled_job_is_not_queued_again_by_a_crash(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    fence = claim(ledger, number).fence
    with ledger.writing() as session:
        jobs.cancel(session, number, actor="ana", now=NOW)
    assert end(ledger, fence, AttemptState.INTERRUPTED) == JobState.CANCELLED


@pytest.mark.parametrize("how", [AttemptState.INTERRUPTED, AttemptState.STOPPED])
def test_the_wish_to_finish_outlives_an_attempt_that_could_not_obey(
    ledger: Ledger, submit: Submit, how: AttemptState
) -> None:
    number = submit()
    fence = claim(ledger, number).fence
    with ledger.writing() as session:
        jobs.finish(session, number, actor="ana", now=NOW)
    assert end(ledger, fence, how) == JobState.QUEUED
    assert wish_of_next_attempt(ledger, number) == Wish.FINISH


def wish_of_next_attempt(ledger: Ledger, number: int) -> Wish | None:
    fence = claim(ledger, number).fence
    with ledger.reading() as session:
        return attempts.standing_wishes(session, [fence])[fence]


def test_a_retry_and_a_cancel_forget_the_wish_to_finish(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    fence = claim(ledger, number).fence
    with ledger.writing() as session:
        jobs.finish(session, number, actor="ana", now=NOW)
    end(ledger, fence, AttemptState.STOPPED)
    with ledger.writing() as session:
        assert jobs.cancel(session, number, actor="ana", now=NOW).wish is None
        jobs.retry(session, number, actor="ana", now=NOW)
    assert wish_of_next_attempt(ledger, number) is None


@pytest.mark.parametrize(
    ("kind", "count", "state"),
    [
        ("diffuse", 0, JobState.CANCELLED),
        ("diffuse", 1, JobState.SUCCEEDED),
        ("noop", 0, JobState.SUCCEEDED),
    ],
)
def test_a_job_finished_early_succeeds_with_what_it_has(
    ledger: Ledger, submit: Submit, kind: str, count: int, state: JobState
) -> None:
    number = submit(kind=kind)
    fence = claim(ledger, number).fence
    with ledger.writing() as session:
        jobs.finish(session, number, actor="ana", now=NOW)
    files = tuple(
        File(name=f"image-{place}.png", kind="image", bytes=1, sha256="0" * 64)
        for place in range(count)
    )
    assert end(ledger, fence, AttemptState.SUCCEEDED, files=files) == state


def test_a_success_without_files_stands_unless_it_was_asked_for(
    ledger: Ledger, submit: Submit
) -> None:
    fence = claim(ledger, submit(kind="diffuse")).fence
    assert end(ledger, fence, AttemptState.SUCCEEDED) == JobState.SUCCEEDED


def test_a_success_stands_although_a_cancel_came_late(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    fence = claim(ledger, number).fence
    with ledger.writing() as session:
        jobs.cancel(session, number, actor="ana", now=NOW)
    assert end(ledger, fence, AttemptState.SUCCEEDED) == JobState.SUCCEEDED


def test_gpu_seconds_add_up_and_decay(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    end(ledger, claim(ledger, number).fence, AttemptState.STOPPED, gpu_seconds=30.0)
    end(ledger, claim(ledger, number).fence, AttemptState.SUCCEEDED, gpu_seconds=10.0)
    with ledger.reading() as session:
        job = session.get_one(Job, number)
        assert job.gpu_seconds == 40.0
        later = NOW + 5 + defaults.USAGE_HALF_LIFE
        assert usage_by_user(session, later) == {job.user_id: pytest.approx(20.0)}


def test_live_attempts_are_found_by_worker(ledger: Ledger, submit: Submit) -> None:
    taken = claim(ledger, submit())
    with ledger.reading() as session:
        assert attempts.live_attempts(session) == [taken]
        assert attempts.live_attempts(session, "w1") == [taken]
        assert attempts.live_attempts(session, "w2") == []
