"""The life of a job outside its attempts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.errors import ConflictError, NotFoundError
from daemon.ledger import attempts, downloads, jobs
from daemon.ledger.attempts import Ending
from daemon.ledger.revision import current_revision
from daemon.ledger.states import AttemptState, JobState
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Job

NOW = 1_000_000.0
Submit = Callable[..., int]


def state_of(ledger: Ledger, number: int) -> tuple[str, str | None]:
    with ledger.reading() as session:
        job = session.get_one(Job, number)
        return job.state, job.reason


def run(ledger: Ledger, number: int, end: AttemptState, now: float = NOW) -> JobState:
    with ledger.writing() as session:
        claim = attempts.claim(session, number, worker="w", device=None, now=now)
        assert claim is not None
    with ledger.writing() as session:
        return attempts.end(session, claim.fence, Ending(state=end, gpu_seconds=1.0), now=now + 1)


def test_a_job_with_nothing_in_its_way_is_queued(ledger: Ledger, submit: Submit) -> None:
    assert state_of(ledger, submit()) == (JobState.QUEUED, None)


def test_a_job_waits_for_the_job_it_needs(ledger: Ledger, submit: Submit) -> None:
    first = submit()
    second = submit(after=[first])
    assert state_of(ledger, second) == (JobState.WAITING, f"waits for job {first}")
    run(ledger, first, AttemptState.SUCCEEDED)
    assert state_of(ledger, second)[0] == JobState.QUEUED


def test_a_failed_dependency_cancels_the_whole_chain(ledger: Ledger, submit: Submit) -> None:
    first = submit()
    second = submit(after=[first])
    third = submit(after=[second])
    run(ledger, first, AttemptState.FAILED)
    assert state_of(ledger, second) == (
        JobState.CANCELLED,
        f"job {first}, which it needs, failed",
    )
    assert state_of(ledger, third)[0] == JobState.CANCELLED


def test_a_job_after_a_failed_one_is_cancelled_at_once(ledger: Ledger, submit: Submit) -> None:
    first = submit()
    run(ledger, first, AttemptState.FAILED)
    assert state_of(ledger, submit(after=[first]))[0] == JobState.CANCELLED


def test_needing_an_unknown_job_writes_nothing(ledger: Ledger, submit: Submit) -> None:
    with pytest.raises(NotFoundError, match="99"):
        submit(after=[99])
    with ledger.reading() as session:
        assert session.query(Job).count() == 0


def test_a_start_time_is_waited_for(ledger: Ledger, submit: Submit) -> None:
    number = submit(begin_at=NOW + 60)
    assert state_of(ledger, number) == (JobState.WAITING, "waits for its start time")
    with ledger.writing() as session:
        assert jobs.settle_waiting(session, now=NOW + 59) == []
        assert jobs.settle_waiting(session, now=NOW + 60) == [number]
    assert state_of(ledger, number)[0] == JobState.QUEUED


def test_hold_and_release(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    with ledger.writing() as session:
        jobs.hold(session, number, actor="ana", now=NOW)
    assert state_of(ledger, number) == (JobState.HELD, "held by ana")
    with ledger.writing() as session, pytest.raises(ConflictError, match="held"):
        jobs.hold(session, number, actor="ana", now=NOW)
    with ledger.writing() as session:
        jobs.release(session, number, actor="ana", now=NOW)
    assert state_of(ledger, number)[0] == JobState.QUEUED


def test_each_queueing_has_a_dispatch_of_its_own(ledger: Ledger, submit: Submit) -> None:
    number = submit(hold=True)
    with ledger.writing() as session:
        jobs.release(session, number, actor="ana", now=NOW)
        assert jobs.queued_dispatches(session) == [(number, 1)]
        jobs.hold(session, number, actor="ana", now=NOW)
        jobs.release(session, number, actor="ana", now=NOW)
        assert jobs.queued_dispatches(session) == [(number, 2)]


def test_cancelling_a_queued_job_ends_it(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    dependent = submit(after=[number])
    with ledger.writing() as session:
        jobs.cancel(session, number, actor="ana", now=NOW)
    assert state_of(ledger, number) == (JobState.CANCELLED, "cancelled by ana")
    assert state_of(ledger, dependent)[0] == JobState.CANCELLED
    with ledger.writing() as session, pytest.raises(ConflictError, match="already ended"):
        jobs.cancel(session, number, actor="ana", now=NOW)


def test_only_a_running_job_can_be_finished(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    with ledger.writing() as session, pytest.raises(ConflictError, match="queued"):
        jobs.finish(session, number, actor="ana", now=NOW)


def test_a_conversion_is_not_finished_with_half_of_a_model(ledger: Ledger, submit: Submit) -> None:
    number = submit(kind="convert")
    with ledger.writing() as session:
        attempts.claim(session, number, worker="w", device=None, now=NOW)
    with (
        ledger.writing() as session,
        pytest.raises(ConflictError, match="half of a model") as refused,
    ):
        jobs.finish(session, number, actor="ana", now=NOW)
    assert refused.value.remedy == f"studioq cancel {number} ends it without a model"


def test_retry_takes_only_failed_and_cancelled_jobs(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    with ledger.writing() as session, pytest.raises(ConflictError):
        jobs.retry(session, number, actor="ana", now=NOW)
    run(ledger, number, AttemptState.FAILED)
    with ledger.writing() as session:
        jobs.retry(session, number, actor="ana", now=NOW)
    assert state_of(ledger, number) == (JobState.QUEUED, None)


def test_a_job_waits_for_its_model_and_fails_with_the_downloads_error(
    ledger: Ledger, submit: Submit
) -> None:
    with ledger.writing() as session:
        downloads.request_download(session, "smollm2", now=NOW)
    number = submit(model="smollm2", needs_download=True)
    assert state_of(ledger, number) == (JobState.WAITING, "waits for the download of smollm2")
    error = {"code": "offline", "message": "no network", "field": None, "remedy": None}
    with ledger.writing() as session:
        downloads.end_download(session, "smollm2", error=error, now=NOW)
    with ledger.reading() as session:
        job = session.get_one(Job, number)
        assert (job.state, job.error) == (JobState.FAILED, error)


def test_a_retry_after_a_failed_download_asks_for_it_again(ledger: Ledger, submit: Submit) -> None:
    with ledger.writing() as session:
        downloads.request_download(session, "m", now=NOW)
    number = submit(model="m", needs_download=True)
    with ledger.writing() as session:
        downloads.end_download(session, "m", error={"code": "offline"}, now=NOW)
        jobs.retry(session, number, actor="ana", now=NOW)
        assert downloads.pending_downloads(session) == ["m"]
    with ledger.writing() as session:
        assert downloads.end_download(session, "m", error=None, now=NOW) == [number]


def test_every_change_has_a_higher_revision(ledger: Ledger, submit: Submit) -> None:
    seen = [0]
    number = submit()
    for change in (jobs.hold, jobs.release, jobs.cancel):
        with ledger.writing() as session:
            change(session, number, actor="ana", now=NOW)
        with ledger.reading() as session:
            seen.append(session.get_one(Job, number).revision)
            assert current_revision(session) >= seen[-1]
    assert seen == sorted(set(seen))
