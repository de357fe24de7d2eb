"""What is said to the person at the terminal, on stderr, in one form."""

from __future__ import annotations

import click

from daemon.errors import StudioqError


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
