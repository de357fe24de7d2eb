"""What the tab says about a log, in words.

The rule this module protects: an empty screen says why it is empty, and a number that may still
grow says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.cli.units import size
from daemon.errors import DaemonAwayError, StudioqError
from tui.log.model import Model

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

_ENDED = frozenset({"succeeded", "failed", "cancelled"})


def hidden(job: JobLine) -> str:
    """Return why this log may not be read, or nothing."""
    if job["readable"]:
        return ""
    return f"Job {job['id']} is {job['user']}'s: only {job['user']} and admins may read its log."


def trouble(error: StudioqError | None, *, is_empty: bool) -> str:
    """Return in short what is wrong; where no line is shown there is room to say it at length."""
    if error is None or is_empty:
        return ""
    if isinstance(error, DaemonAwayError):
        return "the daemon is away, trying again"
    return error.message


def away(error: StudioqError) -> str:
    """Return what is wrong and what helps."""
    return "\n".join(filter(None, (f"{error.message}.", error.remedy)))


def empty(job: JobLine) -> str:
    """Return why there is no log yet."""
    state, reason = job["state"], job["reason"]
    if state in _ENDED:
        return f"The job wrote no log. It {'was ' if state == 'cancelled' else ''}{state}."
    if state == "running":
        return "No log yet. The job has just begun."
    if reason and reason.startswith(("is ", "waits ")):
        return f"No log yet. The job {reason}."
    if reason:
        about = reason if reason.startswith(state) else f"{state}: {reason}"
        return f"No log yet. The job is {about}."
    position = job["position"]
    turn = f", number {position} in the queue" if position else ""
    return f"No log yet. The job is {state}{turn}."


def place(model: Model, top: int | None) -> str:
    """Return how large the log is, and where in it the line at byte ``top`` is."""
    if not model.size:
        return ""
    if model.following or top is None:
        return size(model.size)
    return f"{100 * top // model.size} % of {size(model.size)}"


def news(model: Model, *, ended: bool) -> str:
    """Return what there is below the screen."""
    if model.unseen:
        lines = "line" if model.unseen == 1 else "lines"
        return f"▼ {model.unseen:,} new {lines}"
    if model.following:
        return "end of the log" if ended else "● following"
    return ""


def search(model: Model, *, searching: bool, typing: bool) -> str:
    """Return how the search stands."""
    needle, matches = model.needle, model.matches
    if typing:
        return "enter searches upwards, escape gives up"
    if needle is None:
        return ""
    number = None if model.current is None else matches.number(model.current)
    more = "+" if searching or matches.is_full else ""
    if number is None or more:
        # From the end backwards, so the numbers from the beginning are not known yet.
        count = f"{len(matches):,}{more} {'match' if len(matches) == 1 else 'matches'}"
    else:
        count = f"{number:,} of {len(matches):,}"
    if not searching:
        return f"/{needle.text}  {count}"
    done = 100 * (matches.high - matches.low) // max(1, matches.high)
    return f"/{needle.text}  {count}, searched {done} %"
