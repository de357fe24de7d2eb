"""One look at the daemon for one job: what is new of its metrics, and of its spec if it is wanted.

The rule this module protects: a row travels once. Everything here takes what is known and returns
more of it; nothing is shared between threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daemon.errors import DaemonAwayError, StudioqError
from tui.metrics.curves import Curves, Resumed
from tui.pane import Connect

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.client.answers import Job, Metric


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a job; ``complete``: it does not run, and there was nothing more.

    Two are equal if nothing came between them: curves that got no row are the same object.
    """

    number: int
    curves: Curves = field(default_factory=Curves)
    spec: Mapping[str, Any] | None = None
    complete: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """What is known of a job, and of the one it is compared with, after a look at the daemon.

    ``error`` says why there is nothing new, ``other_error`` why there is nothing new of the other.
    """

    this: Known
    other: Known | None = None
    error: StudioqError | None = None
    other_error: StudioqError | None = None


def look(connect: Connect, this: Known, other: Known | None, *, at_rest: bool) -> Look:
    """Ask the daemon once for what is new; ``at_rest`` says that the job does not run."""
    try:
        with connect() as client:
            this = read_on(client, this, at_rest=at_rest, spec=other is not None)
            if other is None:
                return Look(this=this)
            return _with_other(client, this, other)
    except StudioqError as error:
        return Look(this=this, other=other, error=error)


def _with_other(client: Client, this: Known, other: Known) -> Look:
    try:
        return Look(this=this, other=read_on(client, other, at_rest=None, spec=True))
    except DaemonAwayError:
        raise
    except StudioqError as error:
        return Look(this=this, other=other, other_error=error)


def read_on(client: Client, known: Known, *, at_rest: bool | None, spec: bool = False) -> Known:
    """Return what is known with one more answer of the daemon.

    ``at_rest`` says whether the job did not run before this was called, None that the daemon is to
    be asked where it matters; ``spec`` whether the spec is wanted too.
    """
    rows = [] if known.complete else client.metrics(known.number, after=known.curves.last_id)
    unsure = at_rest is None and not rows and not known.complete
    wanted = (spec and known.spec is None) or unsure or _goes_on(rows, known.curves)
    job = client.job(known.number) if wanted else None
    if unsure and job is not None:
        at_rest = job["state"] != "running"
    return Known(
        number=known.number,
        curves=known.curves.extended(rows, {} if job is None else resumed(job)),
        spec=known.spec if job is None else job["spec"],
        complete=known.complete or (bool(at_rest) and not rows),
    )


def _goes_on(rows: Sequence[Metric], curves: Curves) -> bool:
    """Return whether an attempt after the first has begun, whose first step is to be asked for."""
    return any(row["attempt"] > max(1, curves.attempt) for row in rows)


def resumed(job: Job) -> Resumed:
    """Return the step that each attempt went on from."""
    attempts: Sequence[Any] = job["attempts"]
    return {
        attempt["number"]: attempt["resumed_step"]
        for attempt in attempts
        if "resumed_step" in attempt
    }
