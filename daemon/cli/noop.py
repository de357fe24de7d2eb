"""``studioq noop``: queue a job that does nothing, for tests and benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import command
from daemon.cli.submission import submission_options, submit
from daemon.cli.values import MODEL, NUMBER

if TYPE_CHECKING:
    from daemon.client import Client


@command(
    "noop", examples=("STUDIOQ_TEST_KINDS=1 studioq noop --steps 10 --step-seconds 0.1 --wait",)
)
@click.option("--model", type=MODEL, help="Model that the scheduler is told.")
@click.option("--steps", type=int, default=0, show_default=True, help="Safe points to pass.")
@click.option(
    "--step-seconds", type=NUMBER, default=0.0, show_default=True, help="Time each takes."
)
@click.option("--checkpoint-every", type=int, default=0, show_default=True, help="Steps; 0: never.")
@click.option("--fail-at", type=int, help="Fail at this step.")
@click.option("--deaf", is_flag=True, help="Sleep all the time in one step, hearing nothing.")
@submission_options
def noop(**_: Any) -> int:
    """Do nothing, in steps (only with STUDIOQ_TEST_KINDS=1)."""
    return submit("noop", _as_it_is)


def _as_it_is(_: Client, spec: dict[str, Any]) -> dict[str, Any]:
    return spec
