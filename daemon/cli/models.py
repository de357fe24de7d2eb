"""``studioq models``: what a spec may name, and what each of these models is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.command import Group, json_option, open_client, print_json, socket_option
from daemon.cli.narration import narrate
from daemon.cli.states import visible
from daemon.cli.table import Column, render, terminal_width
from daemon.cli.units import count, size
from daemon.cli.values import MODEL
from daemon.errors import ExitCode, UsageError
from daemon.locate import Paths, Trust, find_daemon

if TYPE_CHECKING:
    from daemon.client.answers import Removed

_COLUMNS = (
    Column(title="name", least=10),
    Column(title="state"),
    Column(title="format", spare=3),
    Column(title="architecture", spare=4),
    Column(title="parameters", right=True, spare=1),
    Column(title="bits", spare=2),
    Column(title="size", right=True),
    Column(title="fits"),
)
_NOTE = Column(title="note")
_INDENT = "    "


@click.group(
    "models",
    cls=Group,
    invoke_without_command=True,
    examples=("studioq models", "studioq models show smollm2", "ls $(studioq models path)"),
)
@json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models; also show or remove one, or print where they are."""
    if ctx.invoked_subcommand is None:
        _print_models(as_json=as_json)


@models.command("list", examples=("studioq models list", "studioq models list --json"))
@json_option
def list_models(as_json: bool) -> None:
    """List the models that a job may name.

    Parameters and bits are counted from the headers of the files; size is that on the disk. A model
    fits if its weights leave room in the memory that the engine may use; tight: they leave little.
    """
    _print_models(as_json=as_json)


@models.command("show", examples=("studioq models show smollm2",))
@click.argument("name", type=MODEL)
@json_option
def show_model(name: str, as_json: bool) -> None:
    """Show one model: what it is, needs, holds, and was made from.

    Of an image model also family and native size; what a single file does not tell before it is
    loaded is left out.
    """
    client = open_client()
    found = client.model(name)
    if as_json:
        print_json(found)
        return
    limit = client.models()["memory"]["limit"] if found["fits"] else None
    for line in _page(found, limit):
        click.echo(line)


@models.command("rm", examples=("studioq models rm ada/mistral-sql", "studioq models rm old --yes"))
@click.argument("name", type=MODEL)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove_model(name: str, yes: bool, as_json: bool) -> int:
    """Remove a model of your own (USER/NAME); an admin, any.

    An admin's must lie in a root that can be written. A model that a job needs stays. On a terminal
    you are asked first; without one, --yes is needed. A model whose download failed is forgotten.
    """
    client = open_client()
    if not yes and not _is_meant(client.model(name)):
        narrate(f"{name} is kept")
        return ExitCode.INTERRUPTED
    answer = client.remove_model(name)
    if as_json:
        print_json(answer)
        return ExitCode.OK
    gone = ", ".join(answer["removed"]) or "its failed download is forgotten"
    narrate(f"removed {name}: {gone}")
    if answer["held_bytes"]:
        narrate(_held(answer))
    return ExitCode.OK


def _held(answer: Removed) -> str:
    """Return why the disk has not all of a model's room back."""
    number = answer["job"]
    where = "other names" if number is None else f"the results of job {number}"
    return f"{size(answer['held_bytes'])} of it still take their room: {where} hold the same files"


def _is_meant(model: Any) -> bool:
    """Ask on a terminal.

    Raises:
        UsageError: there is none to ask on.
    """
    where = f" in {model['path']}" if model["path"] else ""
    told = f"{model['name']}, {size(model['bytes'])}{where}"
    if not sys.stdin.isatty():
        raise UsageError(
            f"removing {told} needs a yes, and there is no terminal to ask on",
            remedy=f"studioq models rm {model['name']} --yes",
        )
    return click.confirm(f"Remove {told}?", err=True)


def _page(model: Any, limit: int | None) -> list[str]:
    """Return aligned lines of what is known of a model."""
    given = {key: value for key, value in _shown(model, limit).items() if value}
    width = max(map(len, given))
    lines = [f"{key:<{width}}  {value}" for key, value in given.items()]
    return lines + list(_file_lines(model["files"]))


def _shown(model: Any, limit: int | None) -> dict[str, str | None]:
    native, made = model["native_size"], model["conversion"] or {}
    fits = f"{model['fits']}, of {size(limit)}" if model["fits"] else None
    return {
        "name": model["name"],
        "state": model["state"],
        "error": model["error"],
        "remedy": model["remedy"],
        "path": model["path"],
        "format": model["format"],
        "architecture": model["architecture"],
        "parameters": f"{model['parameters']:,}" if model["parameters"] else None,
        "bits": _bits(model),
        "size": size(model["bytes"]),
        "memory": size(model["memory_bytes"]),
        "fits": fits,
        "family": model["family"],
        "native size": f"{native[0]}x{native[1]}" if native else None,
        "prediction type": model["prediction_type"],
        "made from": made.get("source"),
        "made by": f"job {made['job']}" if "job" in made else None,
    }


def _file_lines(files: Any) -> Iterator[str]:
    if files:
        yield ""
    width = max((len(size(file["bytes"])) for file in files), default=0)
    for file in files:
        yield f"{size(file['bytes']):>{width}}  {file['name']}"


@models.command("path", examples=("cp -r my-model $(studioq models path)/",))
@json_option
def path(as_json: bool) -> None:
    """Print the folder that models are put into.

    With --json: every model root. Of the user's own home that is known without a daemon, and the
    folder is made if need be; a shared daemon is asked.
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
    limit = answer["memory"]["limit"]
    for line in render_models(answer["models"], limit, width=terminal_width()):
        click.echo(line)


def render_models(models: Any, limit: int | None, *, width: int | None) -> list[str]:
    """Return the table's lines; on a terminal, of ``width`` columns, a note is below its model.

    ``limit``: the bytes that the engine may use.
    """
    rows = [_row(model) for model in models]
    notes = [model["error"] or _needs(model, limit) for model in models]
    if width is None:
        noted = [[*row, note] for row, note in zip(rows, notes, strict=True)]
        return render((*_COLUMNS, _NOTE), noted, width=None)
    title, *lines = render(_COLUMNS, rows, width=width)
    below = (_wrapped(note, width) for note in notes)
    pairs = zip(lines, below, strict=True)
    return [title, *(line for first, others in pairs for line in (first, *others))]


def _wrapped(note: str, width: int) -> list[str]:
    room = max(width, 2 * len(_INDENT))
    return wrap(
        visible(note),
        room,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )


def _row(model: Any) -> list[str]:
    return [
        model["name"],
        model["state"],
        model["format"] or "",
        model["architecture"] or "",
        count(model["parameters"]),
        _bits(model) or "",
        size(model["bytes"]),
        model["fits"] or "",
    ]


def _bits(model: Any) -> str | None:
    if model["bits"] is None:
        return None
    return f"{model['bits']:.1f} (mixed)" if model["mixed_bits"] else f"{model['bits']:g}"


def _needs(model: Any, limit: int | None) -> str:
    """Return how much memory a model takes that does not fit well."""
    if model["fits"] not in {"no", "tight"}:
        return ""
    return f"needs {size(model['memory_bytes'])}; the limit is {size(limit)}"
