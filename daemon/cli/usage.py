"""``studioq usage``: who used the GPU for how long."""

from __future__ import annotations

import click

from daemon.cli.command import command, json_option, open_client, print_json
from daemon.cli.table import Column, render, terminal_width
from daemon.cli.units import duration
from daemon.cli.values import MOMENT

_COLUMNS = (
    Column(title="user", least=6),
    Column(title="jobs", right=True),
    Column(title="GPU time", right=True),
    Column(title="share", right=True),
)


@command(
    "usage",
    examples=("studioq usage", "studioq usage --since -7d", "studioq usage --since 2026-11-01"),
)
@click.option("--since", type=MOMENT, metavar="TIME", help="Count from TIME on: ISO time, or -7d.")
@json_option
def usage(since: float | None, as_json: bool) -> None:
    """Show the GPU time of every user, and the recent share that the queue's fairness counts."""
    users = open_client().usage(since)
    if as_json:
        print_json(users)
        return
    rows = [
        [user["user"], str(user["jobs"]), duration(user["gpu_seconds"]), f"{user['share']:.0%}"]
        for user in users
    ]
    for line in render(_COLUMNS, rows, width=terminal_width()):
        click.echo(line)
