"""``studioq bench``: how fast this machine is at the MLX tutorial's work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli.command import command, json_option, open_client, print_json
from daemon.cli.narration import narrate
from daemon.cli.values import MODEL
from daemon.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from daemon.bench.plan import Plan
    from daemon.bench.record import Record

_TABLES = ("train", "infer", "diffuse")
_REPEATS = 3
_MOST_REPEATS = 100


@command(
    "bench",
    examples=(
        "studioq bench",
        "studioq bench infer --model org/name --save today.json",
        "studioq bench train infer --quick",
        "studioq bench --compare today.json --plot bench.png",
        "studioq bench diffuse --image-model sd21 --compare tutorial",
    ),
)
@click.argument("tables", nargs=-1, type=click.Choice(_TABLES), metavar="[train|infer|diffuse]...")
@click.option(
    "--model",
    type=MODEL,
    default="smollm2",
    show_default=True,
    help="Language model that is trained and asked.",
)
@click.option(
    "--image-model",
    type=MODEL,
    default="shapes",
    show_default=True,
    help="Image model that makes the pictures.",
)
@click.option("--quick", is_flag=True, help="Small counts, one repeat: to see that it works.")
@click.option(
    "--repeats",
    type=click.IntRange(1, _MOST_REPEATS),
    metavar="N",
    help=f"Measured jobs for each figure; default: {_REPEATS}, with --quick 1.",
)
@click.option("--save", metavar="FILE.json", help="Keep the run in a new file.")
@click.option("--plot", metavar="FILE.png", help="Draw the run into a new file.")
@click.option(
    "--compare", metavar="FILE.json|tutorial", help="Show the change since a kept run as well."
)
@json_option
def bench(
    tables: tuple[str, ...],
    model: str,
    image_model: str,
    quick: bool,
    repeats: int | None,
    as_json: bool,
    **files: str | None,
) -> int:
    """Measure training, decoding and pictures as the MLX tutorial did; all three if none is named.

    Queues ordinary jobs, waits for them, and prints a table for each with the tutorial's numbers
    beside it. Ctrl-C cancels the benchmark's own jobs. Exits with 1 if something failed.
    """
    from daemon.bench import compare as comparison
    from daemon.bench.plan import FULL, QUICK, Plan

    save, plot, compare = (files[name] for name in ("save", "plot", "compare"))
    for file in filter(None, (save, plot)):
        _check_new(Path(file))
    before = comparison.earlier(compare) if compare else {}
    plan = Plan(
        tables=tuple(table for table in _TABLES if table in (tables or _TABLES)),
        model=model,
        image_model=image_model,
        size=QUICK if quick else FULL,
        repeats=repeats or (1 if quick else _REPEATS),
    )
    record = _measured(plan, quick=quick)
    if record is None:
        return int(ExitCode.INTERRUPTED)
    _keep(record, save, plot)
    _show(record, before, as_json=as_json)
    return int(ExitCode.JOB_FAILED if record.failed else ExitCode.OK)


def _check_new(file: Path) -> None:
    """Refuse, before anything is measured, a file that could not be written at the end.

    Raises:
        UsageError: it is there, or its folder is not.
    """
    if file.exists():
        raise UsageError(f"{file} is there already", remedy="name another file; none is replaced")
    if not file.parent.is_dir():
        raise UsageError(
            f"there is no folder {file.parent} for {file.name}", remedy="make it, or name another"
        )


def _measured(plan: Plan, *, quick: bool) -> Record | None:
    """Return what was measured; None if the user has interrupted it."""
    from daemon.bench import rival
    from daemon.bench.benchmark import Benchmark
    from daemon.cli.watch import View

    python: str | None = sys.executable
    if "diffuse" in plan.tables and (lacking := rival.missing()):
        narrate(f"PyTorch is not measured: this Python has no {lacking}")
        python = None
    benchmark = Benchmark(
        open_client(autostart=True),
        plan,
        view=View.of_terminal(),
        say=narrate,
        quick=quick,
        python=python,
    )
    try:
        return benchmark.run()
    except KeyboardInterrupt:
        narrate("interrupted; nothing is kept of this run")
        return None


def _keep(record: Record, save: str | None, plot: str | None) -> None:
    if save:
        from daemon.bench.record import write_record

        write_record(Path(save), record)
        narrate(f"kept in {save}")
    if plot:
        from daemon.bench.plot import draw

        draw(Path(plot), record)
        narrate(f"drawn into {plot}")


def _show(record: Record, before: dict[str, Record], *, as_json: bool) -> None:
    """Print the tables and comparisons, or the record as JSON."""
    if as_json:
        print_json(record.to_dict())
        return
    from daemon.bench import compare as comparison
    from daemon.bench import tables
    from daemon.cli.table import terminal_width

    width = terminal_width()
    for line in tables.page(record, width):
        click.echo(line)
    for called, other in before.items():
        click.echo()
        for line in comparison.page(record, other, called, width):
            click.echo(line)
