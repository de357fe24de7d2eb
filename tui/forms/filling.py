"""From an existing job to the entries of a form.

The rule this module protects: what equals the daemon's default is left unset, so that the new job
says what the old one said and nothing more; and a file is kept by its hash, not by a path that is
long forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tui.forms.entries import Entry, Kept, as_text
from tui.forms.fields import Field, Part
from tui.forms.shapes import Control

# What was said of the old job's moment: which jobs it waited for, and when it was to begin.
_THEN = frozenset({"after", "begin_at"})

_SEVERAL = frozenset({Control.LORAS, Control.FILES})
_FILES = frozenset({Control.FILE, Control.DATA, Control.ADAPTER}) | _SEVERAL


def entries_of(fields: Sequence[Field], job: Mapping[str, Any]) -> dict[str, Entry]:
    """Return what the fields hold when the form starts from ``job`` (``GET /jobs/N``)."""
    found = {field.name: _entry(field, job) for field in fields}
    return {name: entry for name, entry in found.items() if entry}


def _entry(field: Field, job: Mapping[str, Any]) -> Entry:
    if field.part is Part.REQUEST and field.name in _THEN:
        return Entry()
    source = job["spec"] if field.part is Part.SPEC else job
    value = source.get(field.name)
    if value is None or value == field.default:
        return Entry()
    if field.control in _FILES and not isinstance(value, str):
        return Entry(kept=tuple(_kept(field, value)))
    return Entry(text=as_text(field, value))


def _kept(field: Field, value: Any) -> Iterator[Kept]:
    for one in value if field.control in _SEVERAL else [value]:
        files = list(_files(one))
        scale = one.get("scale") if field.control is Control.LORAS else None
        names = ", ".join(file["name"] for file in files)
        yield Kept(
            label=names if scale is None else f"{names}:{scale:g}",
            sha256=str(files[0]["sha256"]) if files else "",
            value=_given(one),
        )


def _files(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the files in a value: it is one, or has them in its places."""
    if not isinstance(value, Mapping):
        return
    if {"name", "sha256"} <= set(value):
        yield value
        return
    for part in value.values():
        yield from _files(part)


def _given(value: Any) -> Any:
    """Return a value without the places that are empty."""
    if not isinstance(value, Mapping):
        return value
    return {name: _given(part) for name, part in value.items() if part is not None}
