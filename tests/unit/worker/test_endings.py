"""Why an attempt ends, and what the user reads about it."""

from __future__ import annotations

import dataclasses

import pytest

from daemon.errors import DiskFullError
from daemon.ledger.states import AttemptState
from workers.attempts import AttemptTable, Cause, LiveAttempt
from workers.endings import ending_of, ending_of_death
from workers.keeper import Death
from workers.protocol import Over

KILLED = Death(how="was killed")
NO_MEMORY = Death(how="was ended by SIGABRT: the GPU had no memory left", out_of_memory=True)
FULL = DiskFullError("the disk is full: log.txt")


def over(state: str) -> Over:
    return Over(attempt=1, state=state, peak_memory_bytes=7)


def test_a_stronger_cause_replaces_a_weaker_one(attempt: LiveAttempt) -> None:
    assert attempt.give_reason(Cause.STOP, 100.0)
    assert attempt.give_reason(Cause.CANCEL, 20.0)
    assert not attempt.give_reason(Cause.CANCEL, 5.0)
    assert not attempt.give_reason(Cause.TIME_LIMIT, 5.0)
    assert (attempt.cause, attempt.kill_at) == (Cause.CANCEL, 20.0)


def test_a_later_grace_does_not_put_off_an_earlier_one(attempt: LiveAttempt) -> None:
    attempt.give_reason(Cause.TIME_LIMIT, 10.0)
    attempt.give_reason(Cause.CANCEL, 50.0)
    assert attempt.kill_at == 10.0


def test_the_time_limit_counts_earlier_attempts(attempt: LiveAttempt) -> None:
    limited = dataclasses.replace(attempt.claim, time_limit_seconds=10.0, spent_seconds=8.0)
    attempt.claim = limited
    assert not attempt.overran(2.0)
    assert attempt.overran(2.1)


@pytest.mark.parametrize("state", ["succeeded", "failed", "out_of_memory", "cancelled", "stopped"])
def test_without_a_cause_the_engine_is_believed(attempt: LiveAttempt, state: str) -> None:
    ending = ending_of(attempt, over(state), 3.0)
    assert (ending.state, ending.gpu_seconds, ending.peak_memory_bytes) == (state, 3.0, 7)


def test_an_unknown_state_fails_the_job(attempt: LiveAttempt) -> None:
    ending = ending_of(attempt, over("odd"), 3.0)
    assert ending.state is AttemptState.FAILED
    assert "'odd'" in str(ending.reason)


@pytest.mark.parametrize(
    ("cause", "state"),
    [
        (Cause.STOP, AttemptState.STOPPED),
        (Cause.TIME_LIMIT, AttemptState.TIMED_OUT),
        (Cause.CANCEL, AttemptState.CANCELLED),
    ],
)
def test_what_obeys_or_is_killed_ends_for_the_cause(
    attempt: LiveAttempt, cause: Cause, state: AttemptState
) -> None:
    attempt.give_reason(cause, 0.0)
    assert ending_of(attempt, over("cancelled"), 3.0).state is state
    assert ending_of_death(attempt, KILLED, 3.0, alone=True).state is state


def test_a_job_that_is_done_first_has_succeeded(attempt: LiveAttempt) -> None:
    attempt.give_reason(Cause.CANCEL, 0.0)
    assert ending_of(attempt, over("succeeded"), 3.0).state is AttemptState.SUCCEEDED


def test_a_fault_of_the_worker_fails_the_job(attempt: LiveAttempt) -> None:
    attempt.error = FULL
    attempt.give_reason(Cause.FAULT, 0.0)
    for ending in (
        ending_of(attempt, over("cancelled"), 3.0),
        ending_of(attempt, over("succeeded"), 3.0),
        ending_of_death(attempt, KILLED, 3.0, alone=True),
    ):
        assert ending.state is AttemptState.FAILED
        assert ending.error is not None
        assert ending.error["code"] == "disk_full"


def test_an_unasked_death_interrupts(attempt: LiveAttempt) -> None:
    ending = ending_of_death(attempt, Death(how="aborted (SIGABRT)"), 3.0, alone=True)
    assert ending.state is AttemptState.INTERRUPTED
    assert ending.reason == "the engine aborted (SIGABRT)"


@pytest.mark.parametrize("cause", [None, Cause.STOP])
def test_an_engine_out_of_memory_is_the_end_of_its_only_job(
    attempt: LiveAttempt, cause: Cause | None
) -> None:
    attempt.cause = cause
    ending = ending_of_death(attempt, NO_MEMORY, 3.0, alone=True)
    assert (ending.state, ending.gpu_seconds) == (AttemptState.OUT_OF_MEMORY, 3.0)
    assert ending.error is not None
    assert ending.error["code"] == "out_of_memory"
    assert "smaller" in ending.error["remedy"]


def test_out_of_memory_among_several_interrupts_and_a_cancel_stands(attempt: LiveAttempt) -> None:
    shared = ending_of_death(attempt, NO_MEMORY, 3.0, alone=False)
    assert shared.state is AttemptState.INTERRUPTED
    attempt.cause = Cause.CANCEL
    cancelled = ending_of_death(attempt, NO_MEMORY, 3.0, alone=True)
    assert cancelled.state is AttemptState.CANCELLED


def test_the_table_tells_running_from_ended(attempt: LiveAttempt) -> None:
    table = AttemptTable()
    table.add(attempt)
    assert (table.running(), table.ended()) == ([attempt], [])
    attempt.ending = ending_of(attempt, over("succeeded"), 1.0)
    assert (table.running(), table.ended()) == ([], [attempt])
    table.remove(attempt)
    assert len(table) == 0
    assert table.get(attempt.fence) is None
