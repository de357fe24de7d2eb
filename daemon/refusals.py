"""What is said of a spec that was refused: the field, its value, and what is allowed there.

The rule it protects: the words are ours and the facts the field's own. What is allowed is read from
the model's JSON Schema, so that no limit stands in two places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from daemon.errors import SpecRefusedError

_WORD = re.compile(r"\w{1,60}")
_LONGEST_VALUE = 80

_KINDS = {
    "boolean": "true and false",
    "integer": "whole numbers",
    "number": "numbers",
    "object": "objects",
}

Schema = dict[str, Any]


def refusal(error: ValidationError, model: type[BaseModel]) -> SpecRefusedError:
    """Turn pydantic's first complaint about a ``model`` into field, value and what is allowed."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "refused":  # daemon.specs.base.refused
        words = first["ctx"]
        return SpecRefusedError(words["said"], field=words["field"], remedy=words["remedy"])
    root = model.model_json_schema()
    fields, found = _walk(root, first["loc"])
    place = ".".join(fields)
    if first["type"] == "extra_forbidden":
        return _unknown(fields, first["loc"][-1], found)
    remedy = _remedy(fields[0], root) if fields else None
    called = _called(fields, root)
    if first["type"] == "missing":
        return SpecRefusedError(f"{called} is missing", field=place, remedy=_give(fields[0], root))
    shown = _shown(first["input"])
    if first["type"] == "value_error":
        reason = first["msg"].removeprefix("Value error, ")
        said = reason if shown in reason or not place else f"{shown}: {reason}"
    else:
        said = f"{shown}: allowed are {_allowed(found, root)}"
    if first["type"] == "multiple_of":
        said = f"{said}; nearest: {_neighbours(first['input'], found, root)}"
    if not place:
        return SpecRefusedError(said, remedy="the options and their values: studioq COMMAND --help")
    joint = " = " if said.startswith(f"{shown}: ") else ": "
    return SpecRefusedError(f"{called}{joint}{said}", field=place, remedy=remedy)


def _walk(root: Schema, loc: Iterable[int | str]) -> tuple[list[str], Schema]:
    """Follow an error's place; return the fields on the way and the schema at its end.

    pydantic also puts the tried branch of a union into the place; that is no field.
    """
    fields: list[str] = []
    here = root
    for part in loc:
        below = _below(here, part, root)
        if below is not None:
            fields.append(str(part))
            here = below
    return fields, here


def _below(schema: Schema, part: int | str, root: Schema) -> Schema | None:
    for branch in _branches(schema, root):
        found = branch.get("items") if isinstance(part, int) else _fields(branch).get(part)
        if found is not None:
            below: Schema = found
            return below
    return None


def _branches(schema: Schema, root: Schema) -> list[Schema]:
    """Return the alternatives of a schema, null aside, with references followed."""
    if "$ref" in schema:
        return [root["$defs"][schema["$ref"].rpartition("/")[2]]]
    if "anyOf" not in schema:
        return [schema]
    found = [branch for part in schema["anyOf"] for branch in _branches(part, root)]
    return [branch for branch in found if branch.get("type") != "null"]


def _fields(schema: Schema) -> Schema:
    found: Schema = schema.get("properties", {})
    return found


def _unknown(fields: list[str], name: object, schema: Schema) -> SpecRefusedError:
    word = str(name) if _WORD.fullmatch(str(name)) else _shown(name)
    place = ".".join([*fields, word])
    known = ", ".join(_fields(schema))
    remedy = f"there are: {known}" if known else None
    return SpecRefusedError(f"{place}: there is no such option", field=place, remedy=remedy)


def _called(fields: list[str], root: Schema) -> str:
    """Return what a message calls a place: ``width``, or of a list ``scale of --lora 1``.

    Whoever typed ``--lora`` twice knows a first and a second one, and no ``lora.0``.
    """
    if len(fields) < 2 or not fields[1].isdigit():
        return ".".join(fields)
    nth = f"{_option(fields[0], root)} {int(fields[1]) + 1}"
    return f"{'.'.join(fields[2:])} of {nth}" if fields[2:] else nth


def _remedy(field: str, root: Schema) -> str:
    """Return what to do about a value: as the field's schema says, or to correct the option."""
    told: str | None = _fields(root).get(field, {}).get("remedy")
    return told or f"correct {_option(field, root)}"


def _option(field: str, root: Schema) -> str:
    """Return the command line's name of a field: its own, or the one that its schema names."""
    named: str | None = _fields(root).get(field, {}).get("option")
    return named or f"--{field.replace('_', '-')}"


def _give(field: str, root: Schema) -> str:
    option = _option(field, root)
    return f"give {option}" if option == field else f"give {option}, in a spec {field}"


def _neighbours(value: int, schema: Schema, root: Schema) -> str:
    """Return the allowed multiples below and above a number: ``96 and 104``."""
    limits = next(branch for branch in _branches(schema, root) if "multipleOf" in branch)
    step = limits["multipleOf"]
    below = value // step * step
    near = {min(max(near, limits["minimum"]), limits["maximum"]) for near in (below, below + step)}
    return " and ".join(map(_number, sorted(near)))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}…"


def _allowed(schema: Schema, root: Schema) -> str:
    """Return in the plural what a schema allows."""
    branches = _branches(schema, root)
    return ", or ".join(_kind(branch, schema, root) for branch in branches)


def _kind(schema: Schema, around: Schema, root: Schema) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(str(choice) for choice in schema.get("enum", [schema.get("const")]))
    if "pattern" in schema:
        return str(schema.get("description") or f"texts of the form {schema['pattern']}")
    kind = schema.get("type")
    if kind == "array":
        most = f"at most {schema['maxItems']:,} " if "maxItems" in schema else ""
        return f"lists of {most}{_allowed(schema['items'], root)}"
    if kind == "string":
        # What a text must say is known to a validator; the field's description tells it.
        return f"texts{_length(schema)}" if _length(schema) else _told(around)
    return f"{_many(schema)}{_names(schema)}{_range(schema)}"


def _many(schema: Schema) -> str:
    step = schema.get("multipleOf")
    return f"multiples of {step}" if step else _KINDS[str(schema["type"])]


def _names(schema: Schema) -> str:
    names = ", ".join(_fields(schema))
    return f" with {names}" if names else ""


def _told(schema: Schema) -> str:
    told = schema.get("description")
    return f"texts ({told.rstrip('.')})" if told else "texts"


def _length(schema: Schema) -> str:
    least, most = schema.get("minLength"), schema.get("maxLength")
    if least and most:
        return f" of {least:,} to {most:,} characters"
    return f" of at most {most:,} characters" if most else ""


def _range(schema: Schema) -> str:
    """Return the limits of a number: `` from 1 to 10``, `` above 0 and up to 10``."""
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    limits = (
        ("from", low),
        ("above", schema.get("exclusiveMinimum")),
        ("up to", high),
        ("below", schema.get("exclusiveMaximum")),
    )
    said = [f"{word} {_number(limit)}" for word, limit in limits if limit is not None]
    return f" {' and '.join(said)}" if said else ""


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"
