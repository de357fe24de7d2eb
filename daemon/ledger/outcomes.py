"""What the end of an attempt makes of its job.

The rule this module protects: the decision is a function of the job's row and the ending alone. It
reads and writes nothing; ``attempts.end`` applies what it returns in one statement.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from daemon import defaults
from daemon.ledger.states import AttemptState, JobState, Wish

Values = dict[str, Any]

_OUTCOMES = {
    AttemptState.SUCCEEDED: JobState.SUCCEEDED,
    AttemptState.FAILED: JobState.FAILED,
    AttemptState.CANCELLED: JobState.CANCELLED,
    AttemptState.TIMED_OUT: JobState.FAILED,
    AttemptState.OUT_OF_MEMORY: JobState.FAILED,
}
_FRUITLESS = "finished early, as its user asked, before it had made anything"
_RETRIED = frozenset({AttemptState.FAILED})


class Ended(Protocol):
    """How an attempt ended; see ``attempts.Ending``."""

    @property
    def state(self) -> AttemptState:
        """The attempt's end."""

    @property
    def reason(self) -> str | None:
        """Why, in words."""

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The error to show, where it failed."""


class JobRow(Protocol):
    """The columns of a job that the decision looks at."""

    job_id: int
    wish: str | None
    retries_left: int
    interruptions: int
    dispatch: int


def job_after(job: JobRow, ending: Ended, *, now: float, fruitless: bool = False) -> Values:
    """Return the columns of the job that change: its state, and what follows from it.

    ``fruitless``: it was finished early and has made nothing. That is no success: whoever waits
    for it or fetches from it would find nothing there.
    """
    outcome = _OUTCOMES.get(ending.state)
    if job.wish == Wish.CANCEL and outcome != JobState.SUCCEEDED:
        return _ended(JobState.CANCELLED, "cancelled while it ran", None, now=now)
    if ending.state in _RETRIED and job.retries_left > 0:
        reason = f"failed and is tried again: {ending.reason}"
        return {**_queued(job, reason, now=now), "retries_left": job.retries_left - 1}
    if outcome == JobState.SUCCEEDED and fruitless:
        return _ended(JobState.CANCELLED, _FRUITLESS, None, now=now)
    if outcome is not None:
        why = _told(job) if outcome == JobState.SUCCEEDED else ending.reason
        return _ended(outcome, why, ending.error, now=now)
    if ending.state == AttemptState.INTERRUPTED:
        return _interrupted(job, ending, now=now)
    return _queued(job, ending.reason, now=now)


def _told(job: JobRow) -> str | None:
    """Return what is to be known of a success."""
    return "finished early, as its user asked" if job.wish == Wish.FINISH else None


def _ended(
    state: JobState, reason: str | None, error: Mapping[str, Any] | None, *, now: float
) -> Values:
    values = {"state": state, "reason": reason, "wish": None, "ended_at": now}
    return values if error is None else {**values, "error": dict(error)}


def _queued(job: JobRow, reason: str | None, *, now: float) -> Values:
    """Queue the job again, under a dispatch number of its own; its number keeps its place.

    The wish that it finish early stands, for the next attempt to obey.
    """
    return {
        "state": JobState.QUEUED,
        "reason": reason,
        "wish": job.wish if job.wish == Wish.FINISH else None,
        "dispatch": job.dispatch + 1,
        "queued_at": now,
    }


def _interrupted(job: JobRow, ending: Ended, *, now: float) -> Values:
    """Queue the job again, unless it has now been interrupted too often without progress."""
    count = job.interruptions + 1
    if count < defaults.MAX_INTERRUPTIONS:
        reason = f"was interrupted and goes on: {ending.reason}"
        return {**_queued(job, reason, now=now), "interruptions": count}
    message = (
        f"the job was interrupted {count} times in a row without a new checkpoint; "
        f"the last time: {ending.reason}"
    )
    error = {
        "code": "interrupted",
        "message": message,
        "field": None,
        "remedy": f"see studioq logs {job.job_id}; studioq retry {job.job_id} tries again",
    }
    return {**_ended(JobState.FAILED, message, error, now=now), "interruptions": count}
