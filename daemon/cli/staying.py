"""Staying with a job until it ends: following, waiting, telling the outcome.

The rule it protects: leaving never ends the job. Ctrl-C, a timeout and a closed terminal end the
client alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.narration import complain, narrate
from daemon.cli.states import visible
from daemon.errors import ExitCode

if TYPE_CHECKING:
    from daemon.client import Client


def stay(
    client: Client,
    number: int,
    *,
    text: bool,
    follow: bool,
    timeout: float | None,
    notify: str | None,
) -> int:
    """Wait for a job, with ``follow`` showing its text or log; return its outcome's exit code."""
    begin = time.monotonic()
    if follow:
        show = client.follow_text if text else client.follow_log
        stream(show(number, timeout=timeout))
    left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begin))
    ending = client.wait(number, left)
    tell(ending)
    if notify:
        run_notify(notify, ending)
    return int(outcome(ending))


def stream(pieces: Iterable[str]) -> None:
    """Write text to stdout as it comes; on a terminal without obeying its control characters."""
    terminal = sys.stdout.isatty()
    last = "\n"
    for piece in pieces:
        click.echo(visible(piece) if terminal else piece, nl=False)
        last = piece
    if terminal and not last.endswith("\n"):
        click.echo()


def outcome(ending: Any) -> ExitCode:
    """Return the exit code of a job that has ended."""
    return ExitCode.OK if ending["state"] == "succeeded" else ExitCode.JOB_FAILED


def tell(ending: Any) -> None:
    """Say on stderr how a job ended, and why where there is a reason."""
    error = ending.get("error") or {}
    state, why = ending["state"], error.get("message") or ending.get("reason") or ""
    told = why if why.startswith(state) else ": ".join(filter(None, (state, why)))
    complain(f"job {ending['id']} {told}", error.get("remedy"))


def run_notify(command: str, ending: Any) -> None:
    """Run the user's command, with STUDIOQ_JOB and STUDIOQ_STATE in its environment."""
    environment = os.environ | {
        "STUDIOQ_JOB": str(ending["id"]),
        "STUDIOQ_STATE": str(ending["state"]),
    }
    code = subprocess.run(["/bin/sh", "-c", command], env=environment, check=False).returncode
    if code:
        narrate(f"the command of --notify ended with status {code}")
