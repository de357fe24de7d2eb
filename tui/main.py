"""``studioq tui``: start the app.

The rule this module protects: it begins with what it needs to draw, and everything else comes while
something can already be seen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from daemon.client import Client
from daemon.errors import ExitCode


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the interface until it is left."""
    options = _parser().parse_args(arguments)
    # Textual draws on stderr.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        print("studioq tui needs a terminal; studioq list shows the queue", file=sys.stderr)  # noqa: T201
        return int(ExitCode.USAGE)
    from tui.app import StudioqApp
    from tui.outputs.terminal import prepare
    from tui.settings import read_settings, settings_folder

    # Before the app reads the terminal, whose answer this would otherwise be taken for a key.
    prepare()
    folder = settings_folder()
    app = StudioqApp(lambda: Client(options.socket), settings=read_settings(folder), folder=folder)
    app.run()
    return app.return_code or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="studioq tui", add_help=False)
    parser.add_argument("--socket")
    return parser


if __name__ == "__main__":
    sys.exit(main())
