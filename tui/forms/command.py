"""The command that would submit what the form holds.

The rule this module protects: it can be pasted into a shell. What it cannot say, a file that is
kept from another job, stands behind it as a comment.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from daemon.errors import UsageError
from tui.forms.entries import Entry, choice_text, expanded, parts
from tui.forms.fields import Field
from tui.forms.shapes import Control

_NEGATION = "--no-"
_REPEATED = frozenset({Control.LINES, Control.LORAS, Control.FILES, Control.JOBS})
_PATHS = frozenset({Control.FILE, Control.FILES, Control.DATA, Control.LORAS, Control.ADAPTER})
_EXACT = frozenset({Control.LONG_TEXT, Control.JSON})


def command_line(
    kind: str, fields: Sequence[Field], entries: Mapping[str, Entry], source: int | None = None
) -> str:
    """Return ``studioq KIND …``; kept files are those of job ``source``."""
    places: list[str] = []
    options: list[str] = []
    comments: list[str] = []
    for field in fields:
        entry = entries.get(field.name, Entry())
        values = [
            expanded(value) if field.control in _PATHS else value for value in _said(field, entry)
        ]
        for text, comment in _kept(field, entry, source):
            values.append(text)
            comments.append(comment)
        if field.positional:
            places += values
        elif field.control is Control.SWITCH:
            options += _flag(field, values)
        else:
            options += [word for value in values for word in _option(field, value)]
    # A first word that begins with a dash would be taken for an option.
    ahead = not any(word.startswith("-") for word in places)
    words = [*places, *options] if ahead else [*options, "--", *places]
    line = shlex.join(["studioq", kind, *words])
    return f"{line}  # {'; '.join(comments)}" if comments else line


def one_line(command: str, most: int = 1000) -> str:
    """Return a command for the screen: on one line, and not longer than one can look at."""
    shown = command[:most].replace("\n", "⏎")
    return shown if len(command) <= most else f"{shown}…"


def _said(field: Field, entry: Entry) -> list[str]:
    """Return the field's values as words; one that cannot be read stands as it was typed."""
    if field.control in _EXACT:
        return [entry.text] if entry.text else []
    text = entry.text.strip()
    if not text:
        return []
    try:
        if field.control in _REPEATED:
            return parts(field, entry.text)
        if field.control is Control.NAMES:
            return [",".join(parts(field, text))]
    except (ValueError, UsageError):
        pass
    return [text]


def _option(field: Field, value: str) -> list[str]:
    return [f"{field.option}={value}"] if value.startswith("-") else [field.option, value]


def _flag(field: Field, values: Sequence[str]) -> list[str]:
    """Return the flag that turns the daemon's default round, if that was done."""
    if not values or values[0] == choice_text(field.default):
        return []
    if values[0] == choice_text(True) or field.option.startswith(_NEGATION):
        return [field.option]
    return [f"{_NEGATION}{field.option.removeprefix('--')}"]


def _kept(field: Field, entry: Entry, source: int | None) -> Iterator[tuple[str, str]]:
    if field.control not in _PATHS or (entry.text.strip() and field.control not in _REPEATED):
        return
    for kept in entry.kept:
        several = "," in kept.label
        name = field.option.lstrip("-").upper() if several else kept.label
        yield (
            name,
            f"{kept.label} of job {source}"
            if not several
            else (f"{name} is a folder with {kept.label} of job {source}"),
        )
