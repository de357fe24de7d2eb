"""``studioq repeat``: run a recorded spec again, and compare what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import command, json_option, open_client
from daemon.cli.narration import narrate
from daemon.cli.states import changes
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

    Prints the new job's number. With --wait or --follow it then says whether adapters, texts,
    pictures and models came out with the same hashes and whether the model, the device or a package
    is another than at job N, and exits with 1 where the outputs differ.
    """
    options = given(click.get_current_context())
    check_staying(options)
    client = open_client()
    answer = client.repeat(number)
    kind = client.job(answer["id"])["kind"]
    code = announce(client, answer, options, kind)
    if code or not (options.get("wait") or options.get("follow")):
        return code
    return _compare(client, answer["id"])


def _compare(client: Client, number: int) -> int:
    job = client.job(number)
    for change in changes(job):
        narrate(f"since job {job['repeats']} {change}")
    if job["identical"] is None:
        narrate(f"job {number} made nothing that can be compared with job {job['repeats']}")
        return int(ExitCode.OK)
    same = job["identical"]
    told = "identical to" if same else "different from"
    narrate(f"the outputs are {told} those of job {job['repeats']}, by their hashes")
    return int(ExitCode.OK if same else ExitCode.JOB_FAILED)
