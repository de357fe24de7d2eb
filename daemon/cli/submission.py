"""From a submitting command's options to a queued job.

The rule it protects: only options that were given travel. The daemon fills in the rest, so a
default changed there is never overruled by an older client.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from daemon.cli.command import json_option, open_client, print_json
from daemon.cli.narration import detach, narrate
from daemon.cli.values import DURATION, JOB, MOMENT
from daemon.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from daemon.client import Client

F = TypeVar("F", bound=Callable[..., Any])

# Options of every submitting command, as fields of the request; the rest is the kind's spec.
REQUEST_FIELDS = {
    "name": "name",
    "priority": "priority",
    "after": "after",
    "hold": "hold",
    "begin": "begin_at",
    "time_limit": "time_limit_seconds",
    "retries": "retries",
    "share": "share",
}

# Options that stay in the client.
CLIENT_OPTIONS = frozenset({"wait", "follow", "timeout", "notify", "as_json"})

_STAY = (
    click.option("--wait", is_flag=True, help="Wait, and exit with the job's outcome."),
    click.option("--follow", is_flag=True, help="Show the log (infer: the text) until it ends."),
    click.option("--timeout", type=DURATION, metavar="D", help="Stop waiting after D (exit 5)."),
    click.option("--notify", metavar="COMMAND", help="Run COMMAND here when the job has ended."),
)

_COMMON = (
    click.option("--name", metavar="TEXT", help="A name to know the job by."),
    click.option(
        "--priority",
        type=click.Choice(["low", "normal", "high"]),
        default="normal",
        show_default=True,
        help="Place in the queue.",
    ),
    click.option(
        "--seed", type=int, help="Seed of all random choices; drawn and recorded if not given."
    ),
    click.option(
        "--after",
        type=JOB,
        multiple=True,
        metavar="N",
        help="Start when job N has succeeded; repeatable.",
    ),
    click.option("--hold", is_flag=True, help="Do not start before: studioq release N."),
    click.option(
        "--begin", type=MOMENT, metavar="TIME", help="Start no earlier: ISO time, or +2h."
    ),
    click.option(
        "--time-limit",
        type=DURATION,
        metavar="D",
        help="Fail the job after D of running: 90s, 15m, 2h.",
    ),
    click.option(
        "--retries",
        type=int,
        default=0,
        show_default=True,
        help="Times to try again after a failure.",
    ),
    click.option("--share", is_flag=True, help="Let everybody read the artifacts."),
    *_STAY,
    json_option,
)


def submission_options(function: F) -> F:
    """Add the options that all submitting commands have."""
    return _decorate(function, _COMMON)


def staying_options(function: F) -> F:
    """Add --wait and its companions."""
    return _decorate(function, _STAY)


def _decorate(function: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def given(ctx: click.Context) -> dict[str, Any]:
    """Return the options that stood on the command line."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in ctx.params.items()
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide given options into the kind's spec and the request around it."""
    request = {
        REQUEST_FIELDS[key]: value for key, value in options.items() if key in REQUEST_FIELDS
    }
    spec = {
        key: value
        for key, value in options.items()
        if key not in REQUEST_FIELDS and key not in CLIENT_OPTIONS
    }
    return spec, request


def submit(kind: str, prepare: Callable[[Client, dict[str, Any]], dict[str, Any]]) -> int:
    """Queue a job of ``kind`` from the current command's options; return the exit code.

    ``prepare(client, spec)`` turns local paths into uploads.
    """
    ctx = click.get_current_context()
    options = given(ctx)
    check_staying(options)
    spec, request = split_options(options)
    client = open_client(autostart=True)
    spec = prepare(client, spec)
    answer = client.submit(kind, spec, hub_token=hub_token(spec.get("model")), **request)
    return announce(client, answer, options, kind)


def hub_token(model: str | None) -> str | None:
    """Return this person's Hugging Face token for a model that may have to be fetched from there.

    It is looked for where Hugging Face's own tools keep it, and sent for no other model.
    """
    if model is None or "/" not in model:
        return None
    if token := os.environ.get("HF_TOKEN"):
        return token
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    place = Path(os.environ.get("HF_TOKEN_PATH", f"{home}/token")).expanduser()
    try:
        return place.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def announce(client: Client, answer: Any, options: dict[str, Any], kind: str) -> int:
    """Print a new job's number, say what is to be noted, and stay with it if that was asked for."""
    try:
        for note in answer.get("notes", ()):  # an older daemon sends none
            narrate(f"note: {note}")
        _print_number(answer, options)
        if options.get("wait") or options.get("follow"):
            return _stay(client, answer["id"], options, kind)
    except KeyboardInterrupt:
        return detach([answer["id"]])
    return int(ExitCode.OK)


def _print_number(answer: Any, options: dict[str, Any]) -> None:
    """Print the number; with --follow stdout belongs to what is followed, so it goes to stderr."""
    if options.get("follow"):
        narrate(f"job {answer['id']} is {answer['state']}")
    elif options.get("as_json"):
        print_json(answer)
    else:
        click.echo(str(answer["id"]))


def _stay(client: Client, number: int, options: dict[str, Any], kind: str) -> int:
    from daemon.cli.staying import stay

    return stay(
        client,
        number,
        text=kind == "infer",
        follow=bool(options.get("follow")),
        timeout=options.get("timeout"),
        notify=options.get("notify"),
    )


def check_staying(options: dict[str, Any]) -> None:
    """Refuse options that need somebody who waits.

    Raises:
        UsageError: --timeout or --notify without --wait or --follow, or --json with --follow.
    """
    if options.get("follow") and options.get("as_json"):
        raise UsageError("--follow shows text; --json has no place beside it", remedy="use --wait")
    for name in ("timeout", "notify"):
        if name in options and not (options.get("wait") or options.get("follow")):
            raise UsageError(f"--{name} needs --wait or --follow", remedy=f"add --wait to --{name}")
