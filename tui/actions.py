"""What may be done with a job, by whom.

The rule this module protects: only what the daemon would accept is offered. The daemon decides all
the same; its refusal is shown in its own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.client import Client
    from daemon.client.answers import JobLine

_ENDED = frozenset({"succeeded", "failed", "cancelled"})
_WAITING = frozenset({"queued", "waiting", "paused"})
# Kinds whose jobs end early with what they have.
_FINISHING = frozenset({"train", "infer", "diffuse"})
LEVELS = ("low", "normal", "high")


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that changes a job: what it is called, what is asked before, who does it.

    ``question`` is None where nothing is lost by it. ``run`` is called in a thread and returns what
    to say afterwards.
    """

    name: str
    title: str
    run: Callable[[Client, JobLine], str]
    question: str | None = None


def _cancel(client: Client, job: JobLine) -> str:
    return _said(job, client.cancel(job["id"])["state"], "is being cancelled")


def _finish(client: Client, job: JobLine) -> str:
    client.finish(job["id"])
    return f"job {job['id']} ends with what it has"


def _hold(client: Client, job: JobLine) -> str:
    return _said(job, client.hold(job["id"])["state"], "is held")


def _release(client: Client, job: JobLine) -> str:
    return _said(job, client.release(job["id"])["state"], "is released")


def _retry(client: Client, job: JobLine) -> str:
    return _said(job, client.retry(job["id"])["state"], "is tried again")


def _repeat(client: Client, job: JobLine) -> str:
    return f"job {client.repeat(job['id'])['id']} repeats job {job['id']}"


def _said(job: JobLine, state: str, doing: str) -> str:
    return f"job {job['id']} {doing}" + ("" if state == job["state"] else f" ({state})")


def _priority(level: str) -> Action:
    def run(client: Client, job: JobLine) -> str:
        client.priority(job["id"], level)
        return f"job {job['id']} has {level} priority"

    return Action(name=f"priority_{level}", title=f"{level.capitalize()} priority", run=run)


CANCEL = Action(
    name="cancel",
    title="Cancel",
    run=_cancel,
    question="Cancel {what}? What it has not saved by a checkpoint is lost.",
)
FINISH = Action(
    name="finish",
    title="Finish early",
    run=_finish,
    question="End {what} now, as succeeded, with what it has?",
)
HOLD = Action(name="hold", title="Hold", run=_hold)
RELEASE = Action(name="release", title="Release", run=_release)
RETRY = Action(name="retry", title="Retry", run=_retry)
REPEAT = Action(name="repeat", title="Repeat", run=_repeat)
PRIORITIES = {level: _priority(level) for level in LEVELS}


def offered(job: JobLine | None, *, admin: bool) -> tuple[Action, ...]:
    """Return what this person may do with the job as it is now."""
    if job is None or not (job["mine"] or admin):
        return ()
    state = job["state"]
    if state in _ENDED:
        return (RETRY, REPEAT) if state != "succeeded" else (REPEAT,)
    actions = [CANCEL]
    if state == "running" and job["kind"] in _FINISHING:
        actions.append(FINISH)
    if state in _WAITING:
        actions.append(HOLD)
    if state == "held":
        actions.append(RELEASE)
    actions += [PRIORITIES[level] for level in _levels(job, admin=admin)]
    return tuple(actions)


def _levels(job: JobLine, *, admin: bool) -> list[str]:
    allowed = LEVELS if admin else LEVELS[:-1]
    return [level for level in allowed if level != job["priority"]]


def raised(job: JobLine, *, admin: bool) -> Action | None:
    """Return the action that gives the job the next higher priority, None if there is none."""
    place = LEVELS.index(job["priority"]) + 1
    if place == len(LEVELS):
        return None
    action = PRIORITIES[LEVELS[place]]
    return action if action in offered(job, admin=admin) else None


def lowered(job: JobLine, *, admin: bool) -> Action | None:
    """Return the action that gives the job the next lower priority, None if there is none."""
    place = LEVELS.index(job["priority"]) - 1
    action = PRIORITIES[LEVELS[place]] if place >= 0 else None
    return action if action in offered(job, admin=admin) else None


def question(action: Action, job: JobLine) -> str | None:
    """Return what is asked before the action, with the job's number and name in it."""
    if action.question is None:
        return None
    what = f"job {job['id']}" + (f" ({job['name']})" if job["name"] else "")
    owner = "" if job["mine"] else f" of {job['user']}"
    return action.question.format(what=what + owner)
