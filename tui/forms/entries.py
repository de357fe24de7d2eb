"""What was typed into a field, and what it means.

The rule this module protects: only what was given travels, and nothing that was typed is guessed
at. A text that cannot be read is refused with the field's name, the text and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.errors import UsageError
from tui.forms.fields import NOTHING, Field, allowed
from tui.forms.shapes import Control

_SHOWN = 60
_YES, _NO = "yes", "no"

# Texts that the daemon gets as files, which travel when the form is sent.
_PATHS = frozenset(
    {Control.FILE, Control.FILES, Control.DATA, Control.LORAS, Control.ADAPTER, Control.JOB}
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A file of the job that the form was started from: its name, and how that spec cites it."""

    label: str
    sha256: str
    value: Any


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a field holds: the text that was typed, and the files that are kept."""

    text: str = ""
    kept: tuple[Kept, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.kept)


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A value that stands for files: ``texts`` say which, ``kept`` are there already."""

    control: Control
    texts: tuple[str, ...]
    kept: tuple[Any, ...] = ()


def read(field: Field, entry: Entry, now: datetime | None = None) -> Any:
    """Return a field's value, an ``Upload`` where files are meant, NOTHING where none was given.

    Raises:
        UsageError: the text cannot be read; it names field, text and what is allowed.
    """
    if field.control in _PATHS:
        return _files(field, entry)
    if not entry.text.strip() and field.control is not Control.LONG_TEXT:
        return NOTHING
    if not entry.text:
        return NOTHING
    try:
        return _value(field, entry.text, now or datetime.now(UTC))
    except ValueError as error:
        raise UsageError(
            f"{field.label.lower()} = {_short(entry.text)!r}: {error}",
            field=field.name,
            remedy=f"correct {field.option}" if not field.positional else None,
        ) from None


def read_all(
    fields: Sequence[Field], entries: Mapping[str, Entry], now: datetime | None = None
) -> dict[str, Any]:
    """Return the values that were given, by field name.

    Raises:
        UsageError: the first that cannot be read, or a required one that is missing.
    """
    values = {field.name: read(field, entries.get(field.name, Entry()), now) for field in fields}
    for field in fields:
        if field.required and values[field.name] is NOTHING:
            raise UsageError(
                f"{field.label.lower()} is missing", field=field.name, remedy="every job needs it"
            )
    return {name: value for name, value in values.items() if value is not NOTHING}


def parts(field: Field, text: str) -> list[str]:
    """Return the elements of a list as they were typed."""
    if field.control is Control.LINES:
        return [_line(line) for line in text.splitlines() if line]
    if field.control in {Control.LORAS, Control.FILES}:
        return [line.strip() for line in text.splitlines() if line.strip()]
    return [part for part in text.replace(",", " ").split() if part]


def as_line(text: str) -> str:
    """Return a text as one line of several; JSON where the line alone would not tell it."""
    plain = text and text == text.strip() and text.isprintable() and not text.startswith('"')
    return text if plain else json.dumps(text, ensure_ascii=False)


def as_text(field: Field, value: Any) -> str:
    """Return a value as it is typed into the field; ``read`` gives the value again."""
    match field.control:
        case Control.CHOICE | Control.SWITCH:
            return choice_text(value)
        case Control.NAMES:
            return ",".join(value)
        case Control.JOBS:
            return ", ".join(map(str, value))
        case Control.LINES:
            return "\n".join(map(as_line, value))
        case Control.DURATION:
            return _duration(float(value))
        case Control.MOMENT:
            return datetime.fromtimestamp(value).astimezone().isoformat(timespec="seconds")
        case Control.JSON:
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def choice_text(choice: Any) -> str:
    """Return how a choice is written; what is true or false as yes or no."""
    if isinstance(choice, bool):
        return _YES if choice else _NO
    return str(choice)


def expanded(path: str) -> str:
    """Return a path as it stands on the disk: ``~`` is a shell's word for the home."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


def _value(field: Field, text: str, now: datetime) -> Any:
    match field.control:
        case Control.NUMBER:
            return _number(field, text.strip())
        case Control.CHOICE:
            return _choice(field, text)
        case Control.SWITCH:
            # A switch says nothing where it stands as the daemon would have it.
            value = text == _YES
            return NOTHING if value == field.default else value
        case Control.NAMES | Control.LINES:
            return parts(field, text)
        case Control.JOBS:
            return [_job(part) for part in parts(field, text)]
        case Control.DURATION | Control.MOMENT:
            return _time(field, text.strip(), now)
        case Control.JSON:
            return json.loads(text)
        case Control.LONG_TEXT:
            return text
    return text.strip()


def _number(field: Field, text: str) -> float | str:
    if text in field.shape.words:
        return text
    limits = field.shape.limits
    try:
        number = int(text) if limits.whole else float(text)
    except ValueError:
        raise ValueError(f"allowed are {allowed(field.shape)}") from None
    fits = (
        abs(number) != float("inf")
        and number == number  # NaN is not
        and (limits.minimum is None or number >= limits.minimum)
        and (limits.above is None or number > limits.above)
        and (limits.maximum is None or number <= limits.maximum)
        and (limits.below is None or number < limits.below)
        and (limits.step is None or number % limits.step == 0)
    )
    if not fits:
        raise ValueError(f"allowed are {allowed(field.shape)}")
    return number


def _choice(field: Field, text: str) -> Any:
    for choice in field.shape.choices:
        if choice_text(choice) == text:
            return choice
    raise ValueError(f"allowed are {', '.join(map(choice_text, field.shape.choices))}")


def _job(text: str) -> int:
    from daemon.cli.values import JOB

    return int(JOB.read(text))


def _time(field: Field, text: str, now: datetime) -> float:
    from daemon.cli.values import parse_duration, parse_time

    if field.control is Control.DURATION:
        return parse_duration(text)
    try:
        return parse_time(text, now).timestamp()
    except OverflowError:
        raise ValueError("it is further away than a calendar reaches") from None


def _files(field: Field, entry: Entry) -> Any:
    several = field.control in {Control.LORAS, Control.FILES}
    texts = parts(field, entry.text) if several else [entry.text.strip()]
    texts = [text for text in texts if text]
    if not texts and len(entry.kept) == 1 and not several:
        return entry.kept[0].value
    if not texts and not entry.kept:
        return NOTHING
    if field.control is Control.JOB:
        return texts[0]
    kept = tuple(kept.value for kept in entry.kept) if several else ()
    return Upload(control=field.control, texts=tuple(map(expanded, texts)), kept=kept)


def _line(line: str) -> str:
    if not line.startswith('"'):
        return line
    try:
        return str(json.loads(line))
    except ValueError:
        raise ValueError(
            f"the line {_short(line)} begins like JSON and is none; write it as JSON throughout"
        ) from None


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds % length == 0 and seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
