"""Fields are what the served schema says, whichever kinds and fields there are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.tui.forms.conftest import all_fields
from tui.forms.controls import placeholder
from tui.forms.fields import (
    Field,
    Group,
    Part,
    allowed,
    field_at,
    fields_of,
    kinds_of,
    request_fields,
    span,
)
from tui.forms.shapes import Control

FILE = {"type": "object", "properties": {"name": {}, "sha256": {}}}


def by_name(fields: list[Field]) -> dict[str, Field]:
    return {field.name: field for field in fields}


def test_every_field_of_every_kind_has_a_control_made_for_it(schema: dict[str, Any]) -> None:
    for kind, root in schema["kinds"].items():
        fields = fields_of(schema, kind)
        assert {field.name for field in fields} == set(root["properties"])
        assert Control.JSON not in {field.control for field in fields}
        required = {field.name for field in fields if field.required}
        assert required == set(root.get("required", ()))
    assert kinds_of(schema)["train"].startswith("LoRA")


def test_the_controls_of_the_kinds_that_there_are(schema: dict[str, Any]) -> None:
    shown = {
        f"{kind}.{field.name}": field.control
        for kind in schema["kinds"]
        for field in fields_of(schema, kind)
    }
    assert {place: control for place, control in shown.items() if place in EXPECTED} == EXPECTED


EXPECTED = {
    "train.model": Control.MODEL,
    "train.data": Control.DATA,
    "train.iters": Control.NUMBER,
    "train.num_layers": Control.NUMBER,
    "train.keys": Control.NAMES,
    "train.optimizer": Control.CHOICE,
    "train.mask_prompt": Control.SWITCH,
    "train.resume": Control.JOB,
    "train.sample_prompt": Control.LONG_TEXT,
    "infer.prompt": Control.LONG_TEXT,
    "infer.prompts": Control.FILE,
    "infer.adapter": Control.ADAPTER,
    "infer.stop": Control.LINES,
    "diffuse.lora": Control.LORAS,
    "diffuse.image": Control.FILE,
    "diffuse.batch_size": Control.NUMBER,
    "convert.to": Control.TEXT,
    "convert.group_size": Control.CHOICE,
    "convert.fuse": Control.ADAPTER,
    "noop.step_seconds": Control.NUMBER,
}


def test_the_request_around_a_spec(schema: dict[str, Any]) -> None:
    fields = by_name(request_fields(schema))
    assert {name: field.control for name, field in fields.items()} == {
        "name": Control.TEXT,
        "priority": Control.CHOICE,
        "after": Control.JOBS,
        "hold": Control.SWITCH,
        "begin_at": Control.MOMENT,
        "time_limit_seconds": Control.DURATION,
        "retries": Control.NUMBER,
        "share": Control.SWITCH,
    }
    assert fields["time_limit_seconds"].label == "Time limit"
    assert {field.part for field in fields.values()} == {Part.REQUEST}


def test_required_first_then_the_common_ones_then_the_rest(schema: dict[str, Any]) -> None:
    groups = [field.group for field in fields_of(schema, "train")]
    assert groups == sorted(groups, key=list(Group).index)
    fields = by_name(fields_of(schema, "diffuse"))
    assert fields["prompt"].group is Group.REQUIRED
    assert fields["n_images"].group is Group.COMMON
    assert fields["lora"].group is Group.COMMON, "files are what a job is made of"
    assert fields["preview_every"].group is Group.MORE
    assert fields_of(schema, "diffuse")[-1].name == "seed", "what is drawn comes last"


def test_limits_and_defaults_stand_in_the_empty_field(schema: dict[str, Any]) -> None:
    train, diffuse = (by_name(fields_of(schema, kind)) for kind in ("train", "diffuse"))
    assert placeholder(train["iters"]) == "default 600, 1 to 10,000,000"
    assert placeholder(train["num_layers"]) == "default 16, 1 to 10,000 or all"
    assert placeholder(train["learning_rate"]) == "default 1e-05, above 0, up to 10"
    assert span(diffuse["width"].shape) == "8 to 16,384 in steps of 8"
    assert allowed(train["num_layers"].shape) == "whole numbers from 1 to 10,000, or all"
    assert allowed(train["dropout"].shape) == "numbers from 0 below 1"
    assert allowed(diffuse["width"].shape) == "multiples of 8 from 8 to 16,384"


@pytest.mark.parametrize(
    ("place", "name"), [("data.train", "data"), ("iters", "iters"), ("no.such", None), (None, None)]
)
def test_an_errors_place_leads_to_its_field(
    schema: dict[str, Any], place: str | None, name: str | None
) -> None:
    field = field_at(all_fields(schema, "train"), place)
    assert (field.name if field else None) == name


MADE_UP = {
    "request": {"properties": {"kind": {}, "spec": {}}},
    "kinds": {
        "dub": {
            "description": "Speech from a text.\n\nMore of it.",
            "$defs": {"InputFile": FILE},
            "properties": {
                "voice": {"$ref": "#/$defs/InputFile", "description": "A sample."},
                "takes": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/InputFile"},
                    "default": [],
                },
                "speed": {"type": "number", "minimum": 0.5, "maximum": 2, "default": 1.0},
                "mood": {
                    "anyOf": [{"enum": ["calm", "glad"], "type": "string"}, {"type": "null"}],
                    "default": None,
                    "option": "--tone",
                },
                "loud": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None},
                "curve": {"type": "object", "properties": {"a": {}, "b": {}}, "default": None},
                "format": {"anyOf": [{"const": "wav"}, {"const": "flac"}], "default": "wav"},
                "fade_seconds": {"type": "number", "default": 0.0, "option": "--fade"},
                "points": {"type": "array", "items": {"type": "integer"}, "default": []},
                "odd": {"default": 1},
            },
            "required": ["voice"],
        }
    },
}


def test_a_kind_and_fields_that_nobody_knew() -> None:
    fields = by_name(fields_of(MADE_UP, "dub"))
    assert kinds_of(MADE_UP) == {"dub": "Speech from a text."}
    assert {name: field.control for name, field in fields.items()} == {
        "voice": Control.FILE,
        "takes": Control.FILES,
        "speed": Control.NUMBER,
        "mood": Control.CHOICE,
        "loud": Control.CHOICE,
        "curve": Control.JSON,
        "format": Control.CHOICE,
        "fade_seconds": Control.DURATION,
        "points": Control.JSON,
        "odd": Control.JSON,
    }
    assert fields["voice"].required
    assert fields["mood"].option == "--tone"
    assert fields["format"].shape.choices == ("wav", "flac")
    assert fields["fade_seconds"].label == "Fade"
