"""``studioq models``: what a spec may name."""

from __future__ import annotations

from typing import Any

import click

from daemon.cli.command import Group, json_option, open_client, print_json, socket_option
from daemon.cli.table import Column, render, terminal_width
from daemon.cli.units import size
from daemon.cli.values import MODEL
from daemon.errors import NotFoundError
from daemon.locate import Paths, Trust, find_daemon

_COLUMNS = (
    Column(title="name", least=12),
    Column(title="state"),
    Column(title="format"),
    Column(title="size", right=True),
    Column(title="note", least=8),
)


@click.group(
    "models",
    cls=Group,
    invoke_without_command=True,
    examples=("studioq models", "studioq models show smollm2", "ls $(studioq models path)"),
)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models; also show one, or print where they are."""
    if ctx.invoked_subcommand is None:
        _print_models(as_json=as_json)


@models.command("list", examples=("studioq models list", "studioq models list --json"))
@json_option
def list_models(as_json: bool) -> None:
    """List the models that a job may name."""
    _print_models(as_json=as_json)


@models.command("show", examples=("studioq models show smollm2",))
@click.argument("name", type=MODEL)
@json_option
def show_model(name: str, as_json: bool) -> None:
    """Show one model: its folder, format and bytes; of an image model family and native size.

    What a single file does not tell before it is loaded is left out.
    """
    found = next(
        (model for model in open_client().models()["models"] if model["name"] == name), None
    )
    if found is None:
        raise NotFoundError(f"there is no model {name!r} here", remedy="studioq models list")
    if as_json:
        print_json(found)
        return
    for line in _page(found):
        click.echo(line)


def _page(model: Any) -> list[str]:
    """Return aligned lines of what is known of a model."""
    native = model["native_size"]
    shown = model | {
        "bytes": size(model["bytes"]),
        "native_size": f"{native[0]}x{native[1]}" if native else None,
    }
    given = {key.replace("_", " "): value for key, value in shown.items() if value}
    width = max(map(len, given))
    return [f"{key:<{width}}  {value}" for key, value in given.items()]


@models.command("path", examples=("cp -r my-model $(studioq models path)/",))
@json_option
def path(as_json: bool) -> None:
    """Print the folder that models are put into (with --json: every model root).

    Of the user's own home that is known without a daemon, and the folder is made if need be; a
    shared daemon is asked.
    """
    address = find_daemon(socket_option(click.get_current_context()))
    roots = _own_roots if address.trust is Trust.OWN else _roots_of_daemon
    if as_json:
        print_json(roots(everything=True))
    else:
        click.echo(roots(everything=False)[0])


def _own_roots(*, everything: bool) -> list[str]:
    paths = Paths.default()
    first = str(paths.create_models())
    if not everything:
        return [first]
    from daemon.config import load_config

    return [str(root) for root in load_config(paths).all_roots(paths)]


def _roots_of_daemon(*, everything: bool) -> list[str]:
    roots = open_client().models()["roots"]
    return roots if everything else roots[:1]


def _print_models(*, as_json: bool) -> None:
    answer = open_client().models()
    if as_json:
        print_json(answer)
        return
    rows = [_row(model) for model in answer["models"]]
    for line in render(_COLUMNS, rows, width=terminal_width()):
        click.echo(line)


def _row(model: Any) -> list[str]:
    return [
        model["name"],
        model["state"],
        model["format"] or "",
        size(model["bytes"]),
        model["error"] or "",
    ]
