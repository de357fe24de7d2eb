"""The sentences of the metrics tab: why there is nothing to see, and what is out of date.

The rule this module protects: an empty tab says why it is empty and what will fill it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from daemon.errors import DaemonAwayError, StudioqError

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

ENDED = frozenset({"succeeded", "failed", "cancelled"})

NO_JOB = "No job is shown."
READING = "Reading the metrics…"
NOTHING_CHOSEN = "No plot is shown. The keys 1 to 9 choose some."


def empty(job: JobLine) -> str:
    """Say why a job that may be read has no metrics."""
    number, state = job["id"], job["state"]
    if state in ENDED:
        error = job["error"]
        why = f": {error.get('message')}" if error else "."
        return f"Job {number} measured nothing; it {_ending(state)}{why}"
    if state == "running":
        return f"No metrics yet. Job {number} runs; they come with its first report."
    reason = f": {job['reason']}" if job["reason"] else "."
    return f"No metrics yet. Job {number} is {state}{reason}"


def _ending(state: str) -> str:
    return "was cancelled" if state == "cancelled" else state


def unreadable(job: JobLine) -> str:
    """Say that the metrics of somebody else's job are not to be seen."""
    return (
        f"Job {job['id']} is {job['user']}'s, who has not shared it (--share). "
        "Its owner and admins see its metrics."
    )


def trouble(error: StudioqError) -> str:
    """Say that the daemon did not answer, or what it answered instead."""
    if isinstance(error, DaemonAwayError):
        return "The daemon is away. What it told before stays; the tab goes on when it is back."
    return f"{error.message}. {error.remedy}" if error.remedy else error.message


def compared(number: int, found: Sequence[object] | None) -> str:
    """Say which job's curves are beside, and in how much its spec differs."""
    if found is None:
        return f"compared with job {number}"
    if not found:
        return f"compared with job {number}, whose spec is the same"
    fields = "field" if len(found) == 1 else "fields"
    return f"compared with job {number}, whose spec differs in {len(found)} {fields} (below)"


def no_comparison(number: int, error: StudioqError) -> str:
    """Say why a job could not be compared."""
    return f"Job {number} cannot be compared: {error.message}"
