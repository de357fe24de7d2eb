"""The command beside a form is one that the real commands read as the same job."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest

from daemon.cli.convert import convert
from daemon.cli.diffuse import diffuse
from daemon.cli.infer import infer
from daemon.cli.noop import noop
from daemon.cli.submission import given, split_options
from daemon.cli.train import train
from tests.unit.tui.forms.conftest import all_fields
from tui.forms.command import command_line, one_line
from tui.forms.entries import Entry, Kept, Upload, read
from tui.forms.fields import NOTHING, Part

COMMANDS: dict[str, click.Command] = {
    "train": train,
    "infer": infer,
    "diffuse": diffuse,
    "convert": convert,
    "noop": noop,
}

REQUEST = {
    "name": "it's mine",
    "priority": "low",
    "after": "3, 4",
    "hold": "yes",
    "begin_at": "2026-12-24T18:00+00:00",
    "time_limit_seconds": "90m",
    "retries": "2",
    "share": "yes",
}

FORMS: dict[str, dict[str, str]] = {
    "train": {
        "model": "smollm2",
        "data": "my rows.jsonl",
        "num_layers": "all",
        "keys": "q_proj, v_proj",
        "mask_prompt": "yes",
        "grad_checkpoint": "no",
        "resume": "job:2@100",
        "sample_prompt": "Who\nspoke?",
        "seed": "7",
    },
    "infer": {
        "model": "smollm2",
        "prompt": '-"$HOME" `x`',
        "adapter": "job:3",
        "stop": 'End\n"\\n\\n"\n-',
        "temp": "0.5",
    },
    "diffuse": {
        "prompt": "--a red circle",
        "batch_size": "auto",
        "lora": "a.safetensors:0.5\nb.safetensors",
        "metadata": "no",
        "sampler": "euler-a",
    },
    "convert": {
        "model": "smollm2",
        "to": "small",
        "quantize": "4",
        "group_size": "32",
        "dequantize": "yes",
    },
    "noop": {"steps": "3", "step_seconds": "0.5", "deaf": "yes"},
}


@pytest.mark.parametrize("kind", FORMS)
def test_the_commands_read_it_as_the_form_does(schema: dict[str, Any], kind: str) -> None:
    fields = all_fields(schema, kind)
    entries = {name: Entry(text=text) for name, text in (FORMS[kind] | REQUEST).items()}
    words = shlex.split(command_line(kind, fields, entries))
    assert words[:2] == ["studioq", kind]
    with COMMANDS[kind].make_context(kind, words[2:]) as context:
        spec, request = split_options(given(context))
    values = [(field, read(field, entries.get(field.name, Entry()))) for field in fields]
    for part, found in ((Part.SPEC, spec), (Part.REQUEST, request)):
        sent = {
            field.name: str(_typed(value))
            for field, value in values
            if field.part is part and value is not NOTHING
        }
        assert sent == {name: str(value) for name, value in found.items()}


def _typed(value: Any) -> Any:
    """Return a file's path, as the command has it before it sends the file."""
    if not isinstance(value, Upload):
        return value
    return list(value.texts) if len(value.texts) > 1 else value.texts[0]


def test_an_empty_form_is_the_bare_command(schema: dict[str, Any]) -> None:
    assert command_line("train", all_fields(schema, "train"), {}) == "studioq train"


def test_what_cannot_be_read_stands_as_it_was_typed(schema: dict[str, Any]) -> None:
    entries = {"iters": Entry(text="12x"), "sample_prompt": Entry(text="it's")}
    command = command_line("train", all_fields(schema, "train"), entries)
    assert command == """studioq train --iters 12x --sample-prompt 'it'"'"'s'"""


def test_a_kept_file_is_told_in_a_comment(schema: dict[str, Any]) -> None:
    one = Kept(label="rows.jsonl", sha256="a" * 64, value={})
    two = Kept(label="train.jsonl, valid.jsonl", sha256="a" * 64, value={})
    fields = all_fields(schema, "train")
    told = command_line("train", fields, {"data": Entry(kept=(one,))}, 12)
    assert told == "studioq train --data rows.jsonl  # rows.jsonl of job 12"
    told = command_line("train", fields, {"data": Entry(kept=(two,))}, 12)
    assert told.endswith("--data DATA  # DATA is a folder with train.jsonl, valid.jsonl of job 12")
    told = command_line("train", fields, {"data": Entry(text="x", kept=(one,))}, 12)
    assert told == "studioq train --data x"


def test_the_screen_shows_one_line_of_it() -> None:
    assert one_line("a 'b\nc'") == "a 'b⏎c'"
    assert one_line("x" * 2000) == "x" * 1000 + "…"
