"""The ``studioq`` command, and the one place where an error becomes a message and an exit code.

The rule it protects: stdout carries data and stderr narration, so that a script can rely on both.
This module imports click alone; each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from daemon.cli.narration import complain, complain_of, narrate
from daemon.errors import ExitCode, StudioqError

# How click begins what it says of arguments that no parameter takes.
_FURTHER_WORDS = "Got unexpected extra argument"

# Set by the shell's completion script while it asks for suggestions.
COMPLETE = "_STUDIOQ_COMPLETE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (docs/cli.md lists them)."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        code = _run(words)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        narrate("interrupted")
        return int(ExitCode.INTERRUPTED)
    except click.ClickException as error:
        complain(_message(error, words), _remedy(error))
        return int(ExitCode.USAGE)
    except StudioqError as error:
        return complain_of(error)
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        complain(f"{error.filename or 'the system'}: {error.strerror or error}")
        return int(ExitCode.JOB_FAILED)
    return code


def _run(arguments: Sequence[str]) -> int:
    """Parse and run, as ``click.main`` does, which keeps a broken pipe to itself, though."""
    from daemon.cli.root import cli

    if COMPLETE in os.environ:
        cli.main(arguments, prog_name="studioq", complete_var=COMPLETE)
    try:
        with cli.make_context("studioq", list(arguments)) as ctx:
            return int(cli.invoke(ctx) or ExitCode.OK)
    except click.exceptions.Exit as ended:
        return ended.exit_code


def _message(error: click.ClickException, words: Sequence[str]) -> str:
    """Return what is wrong; a negative number is taken for an option, and is none."""
    negative = next((word for word in words if word[:1] == "-" and word[1:].isdecimal()), None)
    if negative is None or not isinstance(error, click.NoSuchOption):
        return error.format_message()
    return f"{negative!r} is neither an option nor a job's number; studioq list shows the numbers"


def _remedy(error: click.ClickException) -> str | None:
    """Return the command's help page; before it, what is likely meant by further words."""
    context: click.Context | None = getattr(error, "ctx", None)
    if context is None:
        return None
    page = f"{context.command_path} --help"
    takes_prompt = any(param.name == "prompt" for param in context.command.params)
    if takes_prompt and error.message.startswith(_FURTHER_WORDS):
        return f'put a prompt of several words in quotes, as in "a red circle"; {page}'
    return page


def _reader_left() -> int:
    """Be quiet when the program that read stdout has ended (``studioq list | head -1``)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(ExitCode.OK)
