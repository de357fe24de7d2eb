"""The command reference in docs/cli.md, written from the commands themselves.

The rule it protects: the document says what the program does. A test compares the two; to write the
section anew: ``python -c "from daemon.cli.reference import update; update('docs/cli.md')"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from daemon.cli.root import SECTIONS, cli

BEGIN = "<!-- commands: written by daemon/cli/reference.py -->"
END = "<!-- commands: end -->"

_HIDDEN = frozenset({"noop"})


def render() -> str:
    """Return the section: every command with its options and examples, as Markdown."""
    ctx = click.Context(cli, info_name="studioq")
    lines: list[str] = []
    for title, names in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in names:
            command = None if name in _HIDDEN else cli.get_command(ctx, name)
            if command is not None:
                lines += _command(command, f"studioq {name}")
    return "\n".join(lines).rstrip()


def update(path: str | Path) -> None:
    """Write the section into the document at ``path``, between its two markers."""
    file = Path(path)
    file.write_text(replace(file.read_text(encoding="utf-8")), encoding="utf-8")


def replace(document: str) -> str:
    """Return the document with the section as it should be.

    Raises:
        ValueError: the markers are missing.
    """
    before, marker, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (marker and end):
        raise ValueError(f"the document needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{render()}\n\n{END}{after}"


def _command(command: click.Command, path: str) -> Iterator[str]:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    options = [param for param in command.params if isinstance(param, click.Option)]
    children = command.commands if isinstance(command, click.Group) else {}
    words = [
        path,
        *(_metavar(argument) for argument in arguments),
        *(["COMMAND"] if children else []),
    ]
    yield f"### `{' '.join(words)}`"
    yield ""
    yield from _paragraphs(command.help or "")
    shown = [_option(option) for option in options if not option.hidden]
    yield from [*shown, ""] if shown else []
    yield from _examples(getattr(command, "examples", ()))
    for name, child in children.items():
        yield from _command(child, f"{path} {name}")


def _paragraphs(text: str) -> Iterator[str]:
    """Yield a help text, one line for each paragraph."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield " ".join(paragraph.split())
        yield ""


def _option(option: click.Option) -> str:
    names = ", ".join(option.opts)
    value = "" if option.is_flag else f" {_metavar(option)}"
    default = f" Default: {option.default}." if option.show_default else ""
    required = " Required." if option.required else ""
    return f"- `{names}{value}`: {_sentence(option.help or '')}{default}{required}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _metavar(param: click.Parameter) -> str:
    """Return what stands for the value. click's own method changed its signature in 8.2."""
    if param.metavar:
        return param.metavar
    if isinstance(param.type, click.Choice):
        return "|".join(str(choice) for choice in param.type.choices)
    if isinstance(param, click.Argument):
        return (param.name or "").upper()
    return param.type.name.upper()


def _examples(examples: tuple[str, ...]) -> Iterator[str]:
    if examples:
        yield "```sh"
        yield from examples
        yield "```"
        yield ""
