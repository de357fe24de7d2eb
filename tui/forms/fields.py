"""A job kind's schema as a list of fields: what stands in the form, in which order and group.

The rule this module protects: everything that the form says of a field is the daemon's own word:
names, options, descriptions, defaults and limits are read from ``GET /schema``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tui.forms.shapes import Control, Limits, Schema, Shape, shape_of

# As many options of a kind are shown at once, beside its files and references to jobs; they are the
# first that the daemon names, and the rest is one key away.
_COMMON = 6

# What a job is made of is shown at once, however late the schema names it.
_MATTER = frozenset(
    {Control.FILE, Control.FILES, Control.DATA, Control.LORAS, Control.ADAPTER, Control.JOB}
)

# What the form itself says: a submission's kind and spec.
_AROUND = frozenset({"kind", "spec"})


class Part(StrEnum):
    """Where a value goes: into the spec, or into the request around it."""

    SPEC = "spec"
    REQUEST = "request"


class Group(StrEnum):
    """The parts of the form, in their order."""

    REQUIRED = "Required"
    COMMON = "Common"
    MORE = "More"
    QUEUE = "Queue"


class _Nothing:
    def __repr__(self) -> str:
        return "NOTHING"


# A field without a default, and a value that nobody has given.
NOTHING = _Nothing()


@dataclass(frozen=True, kw_only=True)
class Field:
    """One value of a submission. ``option`` is what the command line calls it."""

    name: str
    part: Part
    group: Group
    option: str
    shape: Shape
    help: str = ""
    default: Any = NOTHING

    @property
    def control(self) -> Control:
        """How the value is written."""
        return self.shape.control

    @property
    def required(self) -> bool:
        """Whether there is no job without it."""
        return self.group is Group.REQUIRED

    @property
    def positional(self) -> bool:
        """Whether the command line takes the value without the name of an option."""
        return not self.option.startswith("-")

    @property
    def label(self) -> str:
        """The field's name as it stands before its value."""
        unit = self.control in {Control.DURATION, Control.MOMENT}
        name = self.option.lstrip("-") if unit else self.name
        return name.replace("_", " ").replace("-", " ").capitalize()


def kinds_of(schema: Schema) -> dict[str, str]:
    """Return the kinds of job that the daemon offers, and what it says of each."""
    return {
        kind: str(about.get("description", "")).partition("\n")[0]
        for kind, about in schema["kinds"].items()
    }


def fields_of(schema: Schema, kind: str) -> list[Field]:
    """Return the fields of a kind's spec in the form's order: required, common, the rest."""
    root = schema["kinds"][kind]
    required = frozenset(root.get("required", ()))
    drawn = {name for name, one in root["properties"].items() if "default" not in one} - required
    names = sorted(root["properties"], key=lambda name: name in drawn)
    shapes = {name: _shape(name, root["properties"][name], root, Part.SPEC) for name in names}
    common = set(_common([name for name in names if name not in required | drawn], shapes))
    fields = [
        _field(
            name,
            root["properties"][name],
            shapes[name],
            Part.SPEC,
            _group(name, required, common),
        )
        for name in names
    ]
    return sorted(fields, key=lambda field: list(Group).index(field.group))


def request_fields(schema: Schema) -> list[Field]:
    """Return the fields of the request around every spec."""
    root = schema["request"]
    return [
        _field(name, one, _shape(name, one, root, Part.REQUEST), Part.REQUEST, Group.QUEUE)
        for name, one in root["properties"].items()
        if name not in _AROUND
    ]


def field_at(fields: Sequence[Field], place: str | None) -> Field | None:
    """Return the field that an error's place (``data.train``, ``lora.0.scale``) lies in."""
    name = (place or "").partition(".")[0]
    return next((field for field in fields if field.name == name), None)


def allowed(shape: Shape) -> str:
    """Return which numbers are allowed: ``whole numbers from 1 to 10,000, or all``."""
    limits = shape.limits
    kind = f"multiples of {_number(limits.step)}" if limits.step else "numbers"
    kind = "whole numbers" if limits.whole and not limits.step else kind
    said = " ".join([kind, *_range(limits)])
    return ", or ".join([said, *shape.words])


def span(shape: Shape) -> str:
    """Return a number's limits in few words: ``1 to 10,000 or all``."""
    limits = shape.limits
    if limits.minimum is not None and limits.maximum is not None:
        said = f"{_number(limits.minimum)} to {_number(limits.maximum)}"
    else:
        said = ", ".join(_range(limits))
    step = f"in steps of {_number(limits.step)}" if limits.step else ""
    return " ".join(part for part in (said, step, *(f"or {word}" for word in shape.words)) if part)


def _field(name: str, schema: Schema, shape: Shape, part: Part, group: Group) -> Field:
    return Field(
        name=name,
        part=part,
        group=group,
        option=_option(name, schema),
        shape=shape,
        help=str(schema.get("description", "")),
        default=schema.get("default", NOTHING),
    )


def _option(name: str, schema: Schema) -> str:
    return str(schema.get("option") or f"--{name.replace('_', '-')}")


def _shape(name: str, schema: Schema, root: Schema, part: Part) -> Shape:
    """Return a property's shape; two things its schema says by names alone.

    ``model`` names a model. And where the option leaves the unit of ``time_limit_seconds`` or
    ``begin_at`` out, the value is written with its unit, or as a time.
    """
    shape = shape_of(schema, root)
    if shape.control is Control.TEXT and name == "model":
        return Shape(control=Control.MODEL)
    if shape.control is Control.JOBS and part is not Part.REQUEST:
        return Shape(control=Control.JSON)
    if shape.control is Control.NUMBER and not shape.limits.whole:
        for unit, control in (("_seconds", Control.DURATION), ("_at", Control.MOMENT)):
            if name.endswith(unit) and _option(name, schema) == _bare(name.removesuffix(unit)):
                return Shape(control=control, limits=shape.limits)
    return shape


def _bare(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _common(names: Sequence[str], shapes: dict[str, Shape]) -> Iterator[str]:
    left = _COMMON
    for name in names:
        if shapes[name].control in _MATTER:
            yield name
        elif left:
            left -= 1
            yield name


def _group(name: str, required: frozenset[str], common: set[str]) -> Group:
    if name in required:
        return Group.REQUIRED
    return Group.COMMON if name in common else Group.MORE


def _range(limits: Limits) -> list[str]:
    named = (
        ("from", limits.minimum),
        ("above", limits.above),
        ("to" if limits.minimum is not None else "up to", limits.maximum),
        ("below", limits.below),
    )
    return [f"{word} {_number(limit)}" for word, limit in named if limit is not None]


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"
