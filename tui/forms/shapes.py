"""What a JSON Schema asks for, told from its shape alone.

The rule this module protects: no field is known by name here. Files, references to jobs and lists
are recognised by what their schemas say, so a new field, or a new kind of job, needs no new code;
what is not recognised can still be written as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

Schema = Mapping[str, Any]

# A text that may have this many characters is written in several lines.
_LONG = 10_000

_FILE = frozenset({"name", "sha256"})
_NUMBERS = frozenset({"integer", "number"})


class Control(Enum):
    """How a value is written."""

    TEXT = auto()
    LONG_TEXT = auto()
    NUMBER = auto()
    DURATION = auto()
    MOMENT = auto()
    CHOICE = auto()
    SWITCH = auto()
    NAMES = auto()  # several, with commas between them
    LINES = auto()  # several texts, one a line
    JOBS = auto()  # numbers of jobs
    MODEL = auto()
    JOB = auto()  # job:N[@STEP]
    ADAPTER = auto()  # that, or the path of an adapter
    FILE = auto()  # the path of a file
    DATA = auto()  # the path of training data: a folder or a file
    LORAS = auto()  # paths, each perhaps with :SCALE
    FILES = auto()  # paths
    JSON = auto()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a number may be."""

    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    step: float | None = None
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Shape:
    """``words`` may stand for a number, ``choices`` are all values there are."""

    control: Control
    choices: tuple[Any, ...] = ()
    words: tuple[str, ...] = ()
    limits: Limits = Limits()


def shape_of(schema: Schema, root: Schema) -> Shape:
    """Return what a property asks for; ``root`` has the definitions it refers to."""
    branches = [branch for branch in _branches(schema, root) if branch.get("type") != "null"]
    if len(branches) == 1:
        return _single(branches[0], schema, root, optional="anyOf" in schema)
    kinds = {str(branch.get("type")) for branch in branches}
    if kinds <= {*_NUMBERS, "string"} and kinds & _NUMBERS:
        return _number_or_word(branches)
    if kinds == {"string", "object"} and any(map(_is_adapter, branches)):
        return Shape(control=Control.ADAPTER)
    choices = tuple(choice for branch in branches for choice in _choices(branch))
    if choices and all(_choices(branch) for branch in branches):
        return Shape(control=Control.CHOICE, choices=choices)
    return Shape(control=Control.JSON)


def _branches(schema: Schema, root: Schema) -> Iterator[Schema]:
    """Yield the alternatives of a schema, references followed."""
    if "$ref" in schema:
        yield from _branches(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    elif "anyOf" in schema:
        for branch in schema["anyOf"]:
            yield from _branches(branch, root)
    else:
        yield schema


def _single(branch: Schema, around: Schema, root: Schema, *, optional: bool) -> Shape:
    """Return the shape of the only branch that a property has, null aside."""
    if choices := _choices(branch):
        return Shape(control=Control.CHOICE, choices=choices)
    kind = branch.get("type")
    if kind == "boolean" and optional:
        return Shape(control=Control.CHOICE, choices=(True, False))
    if kind in _NUMBERS:
        return Shape(control=Control.NUMBER, limits=_limits(branch))
    if kind == "array":
        return _list(branch, root)
    if kind == "string":
        return Shape(control=_text(branch, around))
    return Shape(control=Control.SWITCH if kind == "boolean" else _object(branch))


def _choices(schema: Schema) -> tuple[Any, ...]:
    return tuple(schema["enum"]) if "enum" in schema else _constant(schema)


def _constant(schema: Schema) -> tuple[Any, ...]:
    return (schema["const"],) if "const" in schema else ()


def _number_or_word(branches: list[Schema]) -> Shape:
    numbers = [branch for branch in branches if branch.get("type") in _NUMBERS]
    others = [branch for branch in branches if branch.get("type") == "string"]
    if not all(map(_choices, others)):
        return Shape(control=Control.JSON)
    words = tuple(str(word) for branch in others for word in _choices(branch))
    return Shape(control=Control.NUMBER, words=words, limits=_limits(numbers[0]))


def _limits(schema: Schema) -> Limits:
    return Limits(
        minimum=schema.get("minimum"),
        above=schema.get("exclusiveMinimum"),
        maximum=schema.get("maximum"),
        below=schema.get("exclusiveMaximum"),
        step=schema.get("multipleOf"),
        whole=schema["type"] == "integer",
    )


def _text(schema: Schema, around: Schema) -> Control:
    if "job:N" in str(around.get("description", "")):
        return Control.JOB
    return Control.LONG_TEXT if schema.get("maxLength", 0) >= _LONG else Control.TEXT


def _list(schema: Schema, root: Schema) -> Shape:
    items = list(_branches(schema.get("items", {}), root))
    item = items[0] if len(items) == 1 else {}
    if item.get("type") == "string":
        # What a pattern bounds has no commas in it; free text may.
        return Shape(control=Control.NAMES if "pattern" in item else Control.LINES)
    if item.get("type") == "integer":
        return Shape(control=Control.JOBS, limits=_limits(item))
    if _is_file(item):
        return Shape(control=Control.FILES)
    file = item.get("properties", {}).get("file")
    if file is not None and all(map(_is_file, _branches(file, root))):
        return Shape(control=Control.LORAS)
    return Shape(control=Control.JSON)


def _object(schema: Schema) -> Control:
    if _is_file(schema):
        return Control.FILE
    if _is_adapter(schema):
        return Control.ADAPTER
    places = schema.get("properties", {})
    return Control.DATA if {"train", "rows"} <= set(places) else Control.JSON


def _is_file(schema: Schema) -> bool:
    return set(schema.get("properties", {})) == _FILE


def _is_adapter(schema: Schema) -> bool:
    return {"weights", "config"} == set(schema.get("properties", {}))
