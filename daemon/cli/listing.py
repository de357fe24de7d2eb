"""``studioq list``: the queue, one job to a line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from daemon.cli.command import command, json_option, open_client, print_json
from daemon.cli.narration import narrate
from daemon.cli.states import STATES, coloured, done, note, state_word, title
from daemon.cli.table import Column, render, terminal_width
from daemon.cli.units import duration, running_seconds

_COLUMNS = (
    Column(title="#", right=True),
    Column(title="state"),
    Column(title="kind"),
    Column(title="user", least=4),
    Column(title="name", least=8),
    Column(title="done", right=True),
    Column(title="ran", right=True),
    Column(title="note", least=6),
)
_STATE_COLUMN = 1


@command(
    "list",
    examples=(
        "studioq list",
        "studioq list --all --user ana --kind train",
        "studioq list --state failed --json",
    ),
)
@click.option("--all", "everything", is_flag=True, help="Every ended job, not only the latest.")
@click.option("--user", metavar="U", help="Only this person's jobs.")
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@click.option("--kind", metavar="K", help="Only jobs of this kind.")
@click.option(
    "--limit",
    metavar="COUNT",
    type=click.IntRange(min=1, max=10_000),
    default=50,
    show_default=True,
    help="Most lines, up to 10000.",
)
@json_option
def list_jobs(as_json: bool, **filters: Any) -> None:
    """Show waiting, running and the latest ended jobs, newest first."""
    answer = open_client().jobs(**filters)
    if as_json:
        print_json(answer)
        return
    jobs = answer["jobs"]
    for line in render_jobs(jobs, datetime.now(UTC), width=terminal_width()):
        click.echo(line)
    if len(jobs) < answer["total"]:
        narrate(f"{len(jobs)} of {answer['total']} jobs; --limit shows more")


def render_jobs(jobs: Any, now: datetime, *, width: int | None) -> list[str]:
    """Return the table's lines."""
    rows = [_row(job, now) for job in jobs]

    def paint(row: int, column: int, text: str) -> str:
        return coloured(jobs[row]["state"], text) if column == _STATE_COLUMN else text

    return render(_COLUMNS, rows, width=width, paint=paint)


def _row(job: Any, now: datetime) -> list[str]:
    ran = running_seconds(job, now)
    return [
        str(job["id"]),
        state_word(job["state"]),
        job["kind"],
        job["user"],
        title(job),
        done(job),
        duration(ran),
        note(job),
    ]
