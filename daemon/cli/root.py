"""The table of commands, each of which is imported when it is called.

The rule it protects: ``studioq list`` pays for ``list`` alone. This module imports click only.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from daemon import __version__

# Section of the help page: command: module under daemon.cli and the attribute there.
SECTIONS: dict[str, dict[str, str]] = {
    "Submit a job": {
        "train": "train:train",
        "infer": "infer:infer",
        "diffuse": "diffuse:diffuse",
        "convert": "convert:convert",
        "noop": "noop:noop",
        "repeat": "repeat:repeat",
    },
    "Look at jobs": {
        "tui": "tui:tui",
        "list": "listing:list_jobs",
        "show": "show:show",
        "wait": "waiting:wait",
        "logs": "logs:logs",
        "fetch": "fetch:fetch",
    },
    "Change jobs": {
        "cancel": "change:cancel",
        "finish": "change:finish",
        "retry": "change:retry",
        "hold": "change:hold",
        "release": "change:release",
        "priority": "change:priority",
    },
    "The machine": {
        "models": "models:models",
        "usage": "usage:usage",
        "status": "status:status",
        "drain": "change:drain",
        "resume": "change:resume",
        "daemon": "control:daemon",
        "doctor": "doctor:doctor",
        "demo": "demo:demo",
        "bench": "bench:bench",
        "completion": "completion:completion",
    },
}

_TEST_COMMANDS = frozenset({"noop"})


class Root(click.Group):
    """The ``studioq`` group: finds commands in ``SECTIONS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands that are offered here, in the order of the help page."""
        hidden = frozenset() if os.environ.get("STUDIOQ_TEST_KINDS") == "1" else _TEST_COMMANDS
        return [name for section in SECTIONS.values() for name in section if name not in hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        target = next(names[cmd_name] for names in SECTIONS.values() if cmd_name in names)
        module, attribute = target.split(":")
        found: Any = getattr(importlib.import_module(f"daemon.cli.{module}"), attribute)
        command: click.Command = found
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in sections."""
        offered = self.list_commands(ctx)
        for title, names in SECTIONS.items():
            rows = [(name, self._summary(ctx, name)) for name in names if name in offered]
            with formatter.section(title):
                formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(100) if command else ""


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"studioq {__version__}")
        ctx.exit()


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--socket", metavar="PATH", help="Socket of the daemon; may follow the command, too.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print it.",
)
@click.pass_context
def cli(ctx: click.Context, socket: str | None) -> None:
    """Queue training, inference and diffusion jobs for the one GPU of a shared machine."""
    ctx.ensure_object(dict)["socket"] = socket
    if os.environ.get("NO_COLOR"):
        ctx.color = False
