"""``studioq tui``: the queue on the whole terminal."""

from __future__ import annotations

import os
import sys

import click

from daemon.cli.command import command, socket_option

# A fresh interpreter, because the command line knows nothing of the interface's libraries. -P: a
# folder called tui in the current one is not the program.
_PROGRAM = "import sys; from tui.main import main; sys.exit(main())"


@command("tui", examples=("studioq tui",))
def tui() -> None:
    """Show the queue, logs, curves and pictures on the whole terminal.

    ? lists every key, ctrl+p the commands. Settings are read from tui.toml in studioq's
    configuration folder (~/.config/studioq; on macOS ~/Library/Application Support/studioq):
    theme = "textual-light" and, under [keys], keys by the names that ? shows: jobs.sort = "ctrl+s".
    """
    socket = socket_option(click.get_current_context())
    words = ["--socket", socket] if socket else []
    os.execv(sys.executable, [sys.executable, "-P", "-c", _PROGRAM, *words])  # noqa: S606
