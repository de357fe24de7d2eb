"""Commands that change jobs (cancel to priority) or the whole queue (drain, resume).

The rule it protects: every named job is tried, and the worst answer is the exit code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from daemon.cli.command import command, open_client
from daemon.cli.narration import complain_of, narrate
from daemon.cli.values import job_argument, jobs_argument
from daemon.errors import DaemonAwayError, StudioqError


def _for_each(numbers: tuple[int, ...], act: Callable[[int], Any]) -> int:
    worst = 0
    for number in numbers:
        try:
            _tell(act(number))
        except DaemonAwayError:
            raise
        except StudioqError as error:
            worst = max(worst, complain_of(error))
    return worst


def _tell(answer: Any) -> None:
    reason = f" ({answer['reason']})" if answer.get("reason") else ""
    narrate(f"job {answer['id']} is {answer['state']}{reason}")


@command("cancel", examples=("studioq cancel 12", "studioq cancel 12 13 14"))
@jobs_argument
def cancel(numbers: tuple[int, ...]) -> int:
    """End jobs; a running one ends at its next safe point and keeps its checkpoints."""
    return _for_each(numbers, open_client().cancel)


@command("finish", examples=("studioq finish 12",))
@jobs_argument
def finish(numbers: tuple[int, ...]) -> int:
    """End running jobs now, as succeeded, with what they have.

    A training keeps what it has learned, a diffusion the pictures that are done, an inference the
    text so far. A job that has made nothing yet is cancelled.
    """
    return _for_each(numbers, open_client().finish)


@command("retry", examples=("studioq retry 12",))
@job_argument
def retry(number: int) -> int:
    """Queue an ended job again under its number, from its last checkpoint."""
    return _for_each((number,), open_client().retry)


@command("hold", examples=("studioq hold 12",))
@jobs_argument
def hold(numbers: tuple[int, ...]) -> int:
    """Keep waiting jobs from starting."""
    return _for_each(numbers, open_client().hold)


@command("release", examples=("studioq release 12",))
@jobs_argument
def release(numbers: tuple[int, ...]) -> int:
    """Let held jobs start."""
    return _for_each(numbers, open_client().release)


@command("priority", examples=("studioq priority 12 high", "studioq priority 12 low"))
@job_argument
@click.argument("level", type=click.Choice(["low", "normal", "high"]))
def priority(number: int, level: str) -> int:
    """Change a job's place in the queue."""
    client = open_client()
    return _for_each((number,), lambda job: client.priority(job, level))


@command("drain", examples=("studioq drain && studioq list --state running",))
def drain() -> None:
    """Start no more jobs; the running one ends, new ones queue (admin)."""
    open_client().drain()
    narrate("no more jobs are started; studioq resume lifts that")


@command("resume", examples=("studioq resume",))
def resume() -> None:
    """Start jobs again after drain (admin)."""
    open_client().resume()
    narrate("jobs are started again")
