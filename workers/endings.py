"""How an attempt ended: what the engine said, or its death, seen with what the worker had asked.

The rule this module protects: the end that the user reads names the true reason. A job that its
time limit stopped is not "cancelled", and one whose engine the worker killed is not "interrupted".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.errors import JobError, OutOfMemoryError, StudioqError, TimeLimitError
from daemon.ledger.attempts import Ending
from daemon.ledger.states import AttemptState
from workers.attempts import Cause, LiveAttempt
from workers.keeper import Death
from workers.protocol import Over

# What an attempt that obeyed, or whose engine had to be killed, ended as.
_STATES = {
    Cause.STOP: AttemptState.STOPPED,
    Cause.TIME_LIMIT: AttemptState.TIMED_OUT,
    Cause.CANCEL: AttemptState.CANCELLED,
    Cause.FAULT: AttemptState.FAILED,
    Cause.FENCED: AttemptState.INTERRUPTED,
}
_REASONS = {
    AttemptState.CANCELLED: "cancelled while it ran",
    AttemptState.STOPPED: "was stopped with its worker and goes on from its last checkpoint",
    AttemptState.PREEMPTED: "let another job go first",
}


def ending_of(attempt: LiveAttempt, over: Over, seconds: float) -> Ending:
    """Return the ending of an attempt that the engine reports as over."""
    state, error = _verdict(attempt, over)
    return _ending(attempt, state, error, seconds, over.peak_memory_bytes)


def ending_of_death(attempt: LiveAttempt, death: Death, seconds: float, *, alone: bool) -> Ending:
    """Return the ending of an attempt whose engine has died.

    ``alone`` says that no other attempt was in the engine; only then is it known whose memory was
    too much.
    """
    if death.out_of_memory and alone and attempt.cause in {None, Cause.STOP}:
        return _ending(attempt, AttemptState.OUT_OF_MEMORY, _no_memory(death), seconds, None)
    if attempt.cause is None:
        return Ending(
            state=AttemptState.INTERRUPTED, reason=f"the engine {death.how}", gpu_seconds=seconds
        )
    return _ending(attempt, _STATES[attempt.cause], None, seconds, None)


def _no_memory(death: Death) -> Mapping[str, Any]:
    error = OutOfMemoryError(
        f"the job needed more memory than the device has: the engine {death.how}",
        remedy="use a smaller batch, shorter sequences, or a smaller or quantised model",
    )
    return error.to_dict()


def failed(error: StudioqError, seconds: float = 0.0) -> Ending:
    """Return the ending of an attempt that failed on the worker's side."""
    return Ending(
        state=AttemptState.FAILED,
        reason=error.message,
        error=error.to_dict(),
        gpu_seconds=seconds,
    )


def preparation_error(error: Exception) -> StudioqError:
    """Return why a job cannot be prepared."""
    if isinstance(error, StudioqError):
        return error
    return JobError(
        f"the job could not be prepared: {type(error).__name__}: {error}",
        remedy="this was not foreseen; an admin finds the details in the worker's log",
    )


def never_began() -> Ending:
    """Return the ending of an attempt that was claimed when the engine had gone."""
    return Ending(state=AttemptState.STOPPED, reason="the engine went before the job could begin")


def _verdict(attempt: LiveAttempt, over: Over) -> tuple[AttemptState, Mapping[str, Any] | None]:
    """Return the state, and the error that the engine gave."""
    try:
        state = AttemptState(over.state)
    except ValueError:
        unknown = JobError(f"the engine ended the job as {over.state!r}, which means nothing here")
        return AttemptState.FAILED, unknown.to_dict()
    obeyed = state in {AttemptState.CANCELLED, AttemptState.STOPPED}
    if obeyed and attempt.cause is not None:
        return _STATES[attempt.cause], None
    return state, over.error


def _ending(
    attempt: LiveAttempt,
    state: AttemptState,
    error: Mapping[str, Any] | None,
    seconds: float,
    peak: int | None,
) -> Ending:
    if state is AttemptState.TIMED_OUT:
        error = _time_limit(attempt).to_dict()
    if attempt.error is not None:
        state, error = AttemptState.FAILED, attempt.error.to_dict()
    reason = _REASONS.get(state) if error is None else str(error.get("message"))
    return Ending(
        state=state,
        reason=reason,
        error=error,
        gpu_seconds=seconds,
        peak_memory_bytes=peak,
    )


def _time_limit(attempt: LiveAttempt) -> TimeLimitError:
    limit = attempt.claim.time_limit_seconds or 0.0
    return TimeLimitError(
        f"the job ran longer than its time limit of {limit:g} s",
        remedy="submit it again with a longer --time-limit",
    )
