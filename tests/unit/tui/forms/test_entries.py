"""Texts become values and values texts; what cannot be read is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import UsageError
from tests.unit.tui.forms.conftest import all_fields
from tui.forms.entries import Entry, Kept, Upload, as_line, as_text, parts, read
from tui.forms.fields import NOTHING, Field, Group, Part
from tui.forms.shapes import Control, Shape

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def field(schema: dict[str, Any], place: str) -> Field:
    kind, _, name = place.partition(".")
    return next(field for field in all_fields(schema, kind) if field.name == name)


def value(schema: dict[str, Any], place: str, text: str) -> Any:
    return read(field(schema, place), Entry(text=text), NOW)


def made(control: Control) -> Field:
    return Field(
        name="x", part=Part.SPEC, group=Group.MORE, option="--x", shape=Shape(control=control)
    )


def test_what_texts_mean(schema: dict[str, Any]) -> None:
    assert value(schema, "train.iters", " 20 ") == 20
    assert value(schema, "train.learning_rate", "3e-4") == 3e-4
    assert value(schema, "train.num_layers", "all") == "all"
    assert value(schema, "train.keys", "q_proj, v_proj") == ["q_proj", "v_proj"]
    assert value(schema, "convert.group_size", "32") == 32
    assert value(schema, "infer.prompt", " as it is\n") == " as it is\n"
    assert value(schema, "infer.stop", 'End\n"\\n\\n"') == ["End", "\n\n"]
    assert value(schema, "infer.after", "12, job:14") == [12, 14]
    assert value(schema, "infer.time_limit_seconds", "1h30m") == 5400.0
    assert value(schema, "infer.begin_at", "+2h") == NOW.timestamp() + 7200
    assert value(schema, "train.resume", "job:3@100") == "job:3@100"


def test_what_was_not_given_does_not_travel(schema: dict[str, Any]) -> None:
    for kind in schema["kinds"]:
        for one in all_fields(schema, kind):
            assert read(one, Entry(), NOW) is NOTHING
    assert value(schema, "train.mask_prompt", "no") is NOTHING
    assert value(schema, "train.mask_prompt", "yes") is True
    assert value(schema, "diffuse.metadata", "yes") is NOTHING
    assert value(schema, "diffuse.metadata", "no") is False


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        ("train.iters", "12x", "iters = '12x': allowed are whole numbers from 1 to 10,000,000"),
        ("train.iters", "0", "allowed are whole numbers from 1"),
        ("train.dropout", "1", "allowed are numbers from 0 below 1"),
        ("train.learning_rate", "nan", "allowed are numbers above 0 up to 10"),
        ("train.learning_rate", "inf", "allowed are numbers above 0 up to 10"),
        ("train.num_layers", "most", "or all"),
        ("diffuse.width", "100", "multiples of 8"),
        ("infer.after", "x", "is not a job's number"),
        ("infer.time_limit_seconds", "90", "write 90s, 15m, 2h"),
        ("infer.begin_at", "soon", "is not a time"),
        ("infer.begin_at", "+9999999999d", "further away than a calendar reaches"),
        ("infer.stop", '"open', "begins like JSON and is none"),
    ],
)
def test_what_cannot_be_read(schema: dict[str, Any], place: str, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        value(schema, place, text)
    assert said in refused.value.message
    assert refused.value.field == place.partition(".")[2]


def test_paths_and_kept_files_travel_as_such(schema: dict[str, Any]) -> None:
    kept = Kept(label="a.png", sha256="0" * 64, value={"name": "a.png", "sha256": "0" * 64})
    image, lora = field(schema, "diffuse.image"), field(schema, "diffuse.lora")
    assert read(image, Entry(kept=(kept,))) == kept.value
    assert read(image, Entry(text="b.png", kept=(kept,))) == Upload(
        control=Control.FILE, texts=("b.png",)
    )
    assert read(lora, Entry(text="c.safetensors:0.5\n", kept=(kept,))) == Upload(
        control=Control.LORAS, texts=("c.safetensors:0.5",), kept=(kept.value,)
    )


def test_a_home_is_named_by_its_path(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ana")
    found = value(schema, "diffuse.lora", "~/ink.safetensors:0.8")
    assert found.texts == ("/home/ana/ink.safetensors:0.8",)


@given(st.lists(st.text(min_size=1)))
def test_any_texts_survive_being_lines(texts: list[str]) -> None:
    one = made(Control.LINES)
    assert parts(one, as_text(one, texts)) == texts
    assert all("\n" not in as_line(text) for text in texts)


@given(st.floats(min_value=0.001, max_value=366 * 86400))
def test_durations_survive(seconds: float) -> None:
    one = made(Control.DURATION)
    rounded = round(seconds, 6)
    assert read(one, Entry(text=as_text(one, rounded))) == pytest.approx(rounded, abs=1e-6)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive(number: float) -> None:
    one = made(Control.NUMBER)
    assert read(one, Entry(text=as_text(one, number))) == number


@pytest.mark.parametrize("text", ["{", "[1,", "nope"])
def test_json_that_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        read(made(Control.JSON), Entry(text=text))
