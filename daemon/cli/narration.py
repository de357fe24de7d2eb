"""What is said to the person at the terminal, on stderr, in one form."""

from __future__ import annotations

from collections.abc import Iterable

import click

from daemon.errors import ExitCode, StudioqError


def narrate(line: str) -> None:
    """Say one line."""
    click.echo(f"studioq: {line}", err=True)


def complain(message: str, remedy: str | None = None) -> None:
    """Say what is wrong, and under it what to do."""
    narrate(message)
    if remedy:
        click.echo(f"  remedy: {remedy}", err=True)


def complain_of(error: StudioqError) -> int:
    """Say an error and return its exit code."""
    complain(error.message, error.remedy)
    return int(error.exit_code)


def detach(numbers: Iterable[int]) -> int:
    """Say that the jobs go on, and how to come back to them; return the exit code."""
    names = " ".join(str(number) for number in numbers)
    click.echo(err=True)
    narrate(f"left; job {names} goes on. studioq wait {names} waits again, cancel {names} ends it")
    return int(ExitCode.INTERRUPTED)
