"""``studioq completion``: shell completion, also of job numbers and models.

The rule it protects: completing never waits and never complains; without a daemon it offers
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from daemon.cli import COMPLETE
from daemon.cli.command import command, socket_option
from daemon.errors import StudioqError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from daemon.client import Client

# Seconds that a person at the tab key waits for the daemon.
_PATIENCE = 0.5

_EXAMPLES = (
    'eval "$(studioq completion bash)"   # in ~/.bashrc',
    'eval "$(studioq completion zsh)"    # in ~/.zshrc',
    "studioq completion fish > ~/.config/fish/completions/studioq.fish",
)


@command("completion", examples=_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from daemon.cli.root import cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this click knows no completion for {shell}")
    click.echo(found(cli, {}, "studioq", COMPLETE).source())


def complete_jobs(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the listed jobs whose number begins so, with state and name."""
    from click.shell_completion import CompletionItem

    try:
        jobs = _client(ctx).jobs()["jobs"]
    except (StudioqError, OSError):
        return []
    return [
        CompletionItem(str(job["id"]), help=f"{job['state']} {job['kind']} {job['name'] or ''}")
        for job in jobs
        if str(job["id"]).startswith(incomplete)
    ]


def complete_models(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Return the models whose name begins so."""
    from click.shell_completion import CompletionItem

    try:
        models = _client(ctx).models()["models"]
    except (StudioqError, OSError):
        return []
    return [
        CompletionItem(model["name"], help=model["state"])
        for model in models
        if model["name"].startswith(incomplete)
    ]


def _client(ctx: click.Context) -> Client:
    from daemon.client import Client

    return Client(socket_option(ctx), timeout=_PATIENCE)
