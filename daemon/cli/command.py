"""What all commands share: examples in the help page, ``--socket`` and ``--json``, the client.

The rule it protects: every command finds the daemon, narrates and prints JSON in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from daemon import __version__
from daemon.cli.narration import narrate

if TYPE_CHECKING:
    from daemon.client import Client

Decorated = Callable[[Callable[..., Any]], "Command"]


class _WithExamples(click.Command):
    """A command with examples, and ``--socket`` after it as well as before."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.params.append(_socket_option())

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the examples, one to a line, as they are typed."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(" " * formatter.current_indent + example + "\n")


class Command(_WithExamples):
    """A command that does something."""


class Group(_WithExamples, click.Group):
    """A command with commands below it, in the order in which they are defined."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of the commands below."""
        return list(self.commands)


def command(name: str, *, examples: Sequence[str]) -> Decorated:
    """Return a decorator that makes a function a command of this name."""
    return click.command(name, cls=Command, examples=examples)


def _socket_option() -> click.Option:
    return click.Option(
        ["--socket"], metavar="PATH", expose_value=False, hidden=True, callback=_keep_socket
    )


def _keep_socket(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.find_root().ensure_object(dict)["socket"] = value


def socket_option(ctx: click.Context) -> str | None:
    """Return what ``--socket`` said, before the command or after it."""
    root = ctx.find_root()
    kept = root.obj if isinstance(root.obj, dict) else root.params
    value: str | None = kept.get("socket")
    return value


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def open_client(*, autostart: bool = False) -> Client:
    """Return the client of this command; it is closed with the command's context."""
    from daemon.client import Client

    ctx = click.get_current_context()
    client = Client(
        socket_option(ctx), autostart=autostart, say=narrate, on_version=_compare_versions
    )
    ctx.call_on_close(client.close)
    return client


def _compare_versions(version: str) -> None:
    if version != __version__:
        narrate(
            f"this is studioq {__version__}, the daemon is {version}; "
            "after an upgrade: studioq daemon restart --drain"
        )


def print_json(data: object) -> None:
    """Print an answer as JSON for a program or a person."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
