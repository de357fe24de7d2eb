"""``studioq repeat``: run a recorded spec again, and compare what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import command, json_option, open_client
from daemon.cli.narration import narrate
from daemon.cli.submission import announce, check_staying, given, staying_options
from daemon.cli.values import job_argument
from daemon.errors import ExitCode

if TYPE_CHECKING:
    from daemon.client import Client


@command("repeat", examples=("studioq repeat 12", "studioq repeat 12 --wait --timeout 2h"))
@job_argument
@staying_options
@json_option
def repeat(number: int, **_: Any) -> int:
    """Queue job N's recorded spec again, its seed included, as a new job.

    Prints the new job's number. With --wait or --follow it then compares the artifacts of both by
    hash, one line for each, and exits with 1 where one differs that the spec determines (plots and
    metrics hold times).
    """
    options = given(click.get_current_context())
    check_staying(options)
    client = open_client()
    answer = client.repeat(number)
    kind = client.job(answer["id"])["kind"]
    code = announce(client, answer, options, kind)
    if code or not (options.get("wait") or options.get("follow")):
        return code
    return _compare(client, number, answer["id"])


def _compare(client: Client, first: int, second: int) -> int:
    from daemon.client.compare import is_repeated

    lines = client.compare(first, second)
    for line in lines:
        click.echo(f"{'same' if line['same'] else 'differs'}\t{line['name']}")
    if is_repeated(lines):
        narrate(f"job {second} repeated job {first}")
        return int(ExitCode.OK)
    narrate(f"job {second} differs from job {first}")
    return int(ExitCode.JOB_FAILED)
