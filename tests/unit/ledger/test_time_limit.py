"""What counts against a job's time limit."""

from __future__ import annotations

from collections.abc import Callable

from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Claim, Ending
from daemon.ledger.states import AttemptState
from daemon.ledger.store import Ledger

NOW = 1_000_000.0
Submit = Callable[..., int]


def claim(ledger: Ledger, number: int) -> Claim:
    with ledger.writing() as session:
        taken = attempts.claim(session, number, worker="w1", device="cpu", now=NOW)
    assert taken is not None
    return taken


def run(ledger: Ledger, number: int, state: AttemptState, seconds: float) -> float:
    """Run an attempt; return what had counted against its limit when it began."""
    taken = claim(ledger, number)
    with ledger.writing() as session:
        attempts.end(session, taken.fence, Ending(state=state, gpu_seconds=seconds), now=NOW)
    return taken.spent_seconds


def test_earlier_attempts_count(ledger: Ledger, submit: Submit) -> None:
    number = submit(time_limit_seconds=10.0)

    run(ledger, number, AttemptState.INTERRUPTED, 4.0)

    assert claim(ledger, number).spent_seconds == 4.0


def test_a_retry_has_the_whole_limit_again(ledger: Ledger, submit: Submit) -> None:
    number = submit(time_limit_seconds=10.0)
    run(ledger, number, AttemptState.INTERRUPTED, 4.0)
    run(ledger, number, AttemptState.TIMED_OUT, 7.0)
    with ledger.writing() as session:
        jobs.retry(session, number, actor="ana", now=NOW)

    assert run(ledger, number, AttemptState.INTERRUPTED, 2.0) == 0.0
    assert claim(ledger, number).spent_seconds == 2.0
    with ledger.reading() as session:
        (live,) = attempts.live_attempts(session)
        assert live.spent_seconds == 2.0
        assert jobs.get_job(session, number).gpu_seconds == 13.0
