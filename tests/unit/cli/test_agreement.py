"""The commands agree with the job specs, the document, and the rule of the thin client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from daemon.cli.convert import convert
from daemon.cli.diffuse import diffuse
from daemon.cli.infer import infer
from daemon.cli.noop import noop
from daemon.cli.reference import replace
from daemon.cli.root import SECTIONS, cli
from daemon.cli.submission import CLIENT_OPTIONS, REQUEST_FIELDS
from daemon.cli.train import train
from daemon.specs import SPECS, JobRequest

COMMANDS = {
    "train": train,
    "infer": infer,
    "diffuse": diffuse,
    "convert": convert,
    "noop": noop,
}
DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"

# Packages whose import alone costs more than a whole submission may.
HEAVY = {"mlx", "redis", "rq", "sqlalchemy", "pydantic", "fastapi", "uvicorn", "numpy", "alembic"}


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {
        str(option.name): option
        for option in command.params
        if isinstance(option, click.Option) and option.name != "socket"
    }


@pytest.mark.parametrize("kind", SPECS)
def test_every_field_is_an_option_and_every_option_a_field(kind: str) -> None:
    arguments = {param.name for param in COMMANDS[kind].params if isinstance(param, click.Argument)}
    names = set(options_of(COMMANDS[kind])) | arguments
    fields = set(SPECS[kind].model_json_schema()["properties"])
    assert names - CLIENT_OPTIONS - set(REQUEST_FIELDS) == fields
    assert set(REQUEST_FIELDS) <= names
    assert set(REQUEST_FIELDS.values()) == set(JobRequest.model_fields) - {"kind", "spec"}


@pytest.mark.parametrize("kind", SPECS)
def test_the_defaults_in_the_help_are_the_daemons(kind: str) -> None:
    request = JobRequest.model_json_schema()["properties"]
    properties = request | SPECS[kind].model_json_schema()["properties"]
    for name, option in options_of(COMMANDS[kind]).items():
        if name in CLIENT_OPTIONS:
            continue
        schema = properties[REQUEST_FIELDS.get(name, name)]
        shown: Any = option.default if option.show_default else None
        real = schema.get("default")
        if option.is_flag:
            assert real is option.opts[0].startswith("--no-"), name
        else:
            assert shown == (real if option.show_default else None), name
            assert option.show_default or real in (None, []), name


@pytest.mark.parametrize("kind", SPECS)
def test_the_choices_are_the_daemons(kind: str) -> None:
    request = JobRequest.model_json_schema()["properties"]
    properties = request | SPECS[kind].model_json_schema()["properties"]
    for name, option in options_of(COMMANDS[kind]).items():
        if isinstance(option.type, click.Choice):
            branches = [properties[name], *properties[name].get("anyOf", [])]
            allowed = next(branch["enum"] for branch in branches if "enum" in branch)
            assert list(option.type.choices) == list(allowed), name


@pytest.mark.parametrize("kind", SPECS)
def test_the_daemon_calls_a_field_as_the_command_line_does(kind: str) -> None:
    fields = SPECS[kind].model_json_schema()["properties"]
    for param in COMMANDS[kind].params:
        if param.name not in fields:
            continue
        called = param.opts[0] if isinstance(param, click.Option) else placeholder(param)
        named = fields[param.name].get("option", f"--{param.name.replace('_', '-')}")
        assert named == called


def placeholder(argument: click.Parameter) -> str:
    """Return what stands for an argument in the help: ``SRC``, ``PROMPT`` of ``PROMPT|-``."""
    return (argument.metavar or str(argument.name).upper()).partition("|")[0]


def test_the_document_lists_every_command_and_option() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert replace(document) == document, "write it anew, see daemon/cli/reference.py"


def every_command() -> list[tuple[str, click.Command]]:
    ctx = click.Context(cli, info_name="studioq")
    found: list[tuple[str, click.Command]] = []
    for names in SECTIONS.values():
        for name, target in names.items():
            command = cli.get_command(ctx, name)
            if command is None:
                assert target == "noop:noop"
                continue
            found.append((name, command))
            children = command.commands if isinstance(command, click.Group) else {}
            found += [(f"{name} {child}", below) for child, below in children.items()]
    return found


@pytest.mark.parametrize(("path", "command"), every_command(), ids=lambda value: str(value)[:20])
def test_every_help_page_has_examples_and_says_what_each_option_does(
    path: str, command: click.Command
) -> None:
    page = command.get_help(click.Context(command, info_name=f"studioq {path}"))
    assert "Examples:" in page
    assert f"studioq {path}" in page.split("Examples:")[1]
    assert all(option.help for option in options_of(command).values())


READERS = ["list", "show", "wait", "logs", "fetch", "usage", "status", "doctor", "models"]


def test_every_reading_command_takes_json() -> None:
    commands = dict(every_command())
    readers = [*READERS, *(path for path in commands if path.startswith("models "))]
    assert all("as_json" in options_of(commands[path]) for path in [*readers, "daemon status"])


def loaded_after(program: str) -> set[str]:
    program += "\nimport json, sys\nprint(json.dumps([n.partition('.')[0] for n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_submitting_and_listing_import_nothing_heavy() -> None:
    program = """
import click, daemon.cli, daemon.client
from daemon.cli.root import cli
ctx = click.Context(cli)
for name in ("train", "infer", "diffuse", "convert", "list", "show", "wait", "logs", "fetch"):
    command = cli.get_command(ctx, name)
    command.get_help(click.Context(command, info_name=name))
"""
    loaded = loaded_after(program)
    assert not loaded & HEAVY
    # Light by comparison, but each is a tenth of what a submission may cost.
    assert not loaded & {"email", "ssl", "asyncio", "platformdirs"}


def test_the_root_imports_no_command() -> None:
    loaded = loaded_after(
        "import daemon.cli.root, sys\nassert 'daemon.cli.train' not in sys.modules"
    )
    assert not loaded & ({"asyncio", "platformdirs"} | HEAVY)
