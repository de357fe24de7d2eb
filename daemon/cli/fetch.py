"""``studioq fetch``: bring a job's results here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli.command import command, json_option, open_client, print_json
from daemon.cli.narration import narrate
from daemon.cli.units import size
from daemon.cli.values import job_argument
from daemon.errors import UsageError

if TYPE_CHECKING:
    from daemon.client.download import Fetched


@command(
    "fetch",
    examples=(
        "studioq fetch 12",
        "studioq fetch 12 loss.png --to ~/Desktop",
        "studioq fetch 12 checkpoints/0000300 --to here",
        "studioq fetch 12 --preview",
    ),
)
@job_argument
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--to", metavar="DIR", help="Folder, made if needed (default: ./job-N).")
@click.option("--all", "everything", is_flag=True, help="The checkpoints too.")
@click.option(
    "--preview", is_flag=True, help="Instead, the latest preview of a diffusion that runs."
)
@json_option
def fetch(
    number: int,
    names: tuple[str, ...],
    to: str | None,
    everything: bool,
    preview: bool,
    as_json: bool,
) -> None:
    """Bring a job's results into ./job-N, or the artifacts that NAME means.

    Checkpoints come only by name or with --all; NAME may be a folder of artifacts. A file that is
    here with the same content is left alone; one that differs is never overwritten: then nothing
    is fetched (exit 2). Prints the path of each file. A preview is no result: preview.png is
    replaced, and where a job has none (it does not run, or draws none) the exit code is 2.
    """
    if preview:
        _fetch_preview(number, names, to, everything=everything, as_json=as_json)
        return
    found = open_client().fetch(number, names, to=to, everything=everything)
    if as_json:
        print_json([asdict(file) | {"path": str(file.path)} for file in found])
        return
    for file in found:
        click.echo(str(file.path))
    narrate(_summary(found))


def _fetch_preview(
    number: int, names: tuple[str, ...], to: str | None, *, everything: bool, as_json: bool
) -> None:
    if names or everything:
        raise UsageError(
            "--preview brings one picture; NAME and --all mean artifacts",
            remedy="leave out one of the two",
        )
    target = Path(to or f"job-{number}") / "preview.png"
    path = open_client().preview(number, target)
    if as_json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        click.echo(str(path))


def _summary(found: list[Fetched]) -> str:
    written = [file for file in found if file.written]
    total = size(sum(file.bytes for file in written))
    kept = len(found) - len(written)
    return f"{len(written)} fetched ({total})" + (f", {kept} here already" if kept else "")
