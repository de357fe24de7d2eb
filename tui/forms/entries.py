"""What was typed into a field, and what it means.

The rule this module protects: only what was given travels, and nothing that was typed is guessed
at. A text that cannot be read is refused with the field's name, the text and what is allowed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from daemon.errors import UsageError
from tui.forms.fields import NOTHING, Field, allowed
from tui.forms.shapes import Control, Limits

_SHOWN = 60
_REFERENCE = "job:"
# Whole numbers below this one are written out.
_EXACT = 1e15
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
    if not (entry.text if field.control is Control.LONG_TEXT else entry.text.strip()):
        return NOTHING
    try:
        reader = _READERS.get(field.control, _stripped)
        return reader(field, entry.text, now or datetime.now(UTC))
    except ValueError as error:
        raise UsageError(
            f"{field.label.lower()} = {_short(entry.text)!r}: {error}",
            field=field.name,
        ) from None


def parts(field: Field, text: str) -> list[str]:
    """Return the elements of a list as they were typed."""
    if field.control is Control.LINES:
        return [_line(line) for line in text.split("\n") if line]
    if field.control in {Control.LORAS, Control.FILES}:
        return [line.strip() for line in text.split("\n") if line.strip()]
    return [part for part in text.replace(",", " ").split() if part]


def as_line(text: str) -> str:
    """Return a text as one line of several; JSON where the line alone would not tell it."""
    plain = text and text == text.strip() and text.isprintable() and not text.startswith('"')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def as_text(field: Field, value: Any) -> str:
    """Return a value as it is typed into the field; ``read`` gives the value again."""
    return _WRITERS.get(field.control, str)(value)


def choice_text(choice: Any) -> str:
    """Return how a choice is written; what is true or false as yes or no."""
    if isinstance(choice, bool):
        return _YES if choice else _NO
    return str(choice)


def expanded(path: str) -> str:
    """Return a path as it stands on the disk: ``~`` is a shell's word for the home."""
    return os.path.expanduser(path)  # noqa: PTH111 - FILE:SCALE is no path


def _number(field: Field, text: str, _: datetime) -> float | str:
    if text.strip() in field.shape.words:
        return text.strip()
    try:
        number = int(text) if field.shape.limits.whole else float(text)
    except ValueError:
        number = math.nan
    if not _fits(number, field.shape.limits):
        raise ValueError(f"allowed are {allowed(field.shape)}")
    return number


def _fits(number: float, limits: Limits) -> bool:
    return (
        math.isfinite(number)
        and (limits.minimum is None or number >= limits.minimum)
        and (limits.above is None or number > limits.above)
        and (limits.maximum is None or number <= limits.maximum)
        and (limits.below is None or number < limits.below)
        and (limits.step is None or number % limits.step == 0)
    )


def _choice(field: Field, text: str, _: datetime) -> Any:
    for choice in field.shape.choices:
        if choice_text(choice) == text:
            return choice
    raise ValueError(f"allowed are {', '.join(map(choice_text, field.shape.choices))}")


def _switch(field: Field, text: str, _: datetime) -> Any:
    """Return a switch's value; it says nothing where it stands as the daemon would have it."""
    value = text == _YES
    return NOTHING if value == field.default else value


def _jobs(field: Field, text: str, _: datetime) -> list[int]:
    from daemon.cli.values import JOB

    return [int(JOB.read(part)) for part in parts(field, text)]


def _duration(_: Field, text: str, __: datetime) -> float:
    from daemon.cli.values import parse_duration

    return parse_duration(text.strip())


def _moment(_: Field, text: str, now: datetime) -> float:
    from daemon.cli.values import parse_time

    try:
        return parse_time(text.strip(), now).timestamp()
    except OverflowError:
        raise ValueError("it is further away than a calendar reaches") from None


def _list(field: Field, text: str, _: datetime) -> list[str]:
    return parts(field, text)


def _exact(_: Field, text: str, __: datetime) -> str:
    return text


def _json(_: Field, text: str, __: datetime) -> Any:
    return json.loads(text)


def _stripped(_: Field, text: str, __: datetime) -> str:
    return text.strip()


def _files(field: Field, entry: Entry) -> Any:
    several = field.control in {Control.LORAS, Control.FILES}
    texts = parts(field, entry.text) if several else [entry.text.strip()]
    texts = [text for text in texts if text]
    if not texts and len(entry.kept) == 1 and not several:
        return entry.kept[0].value
    if not texts and not entry.kept:
        return NOTHING
    if field.control is Control.JOB or (
        field.control is Control.ADAPTER and texts[0].startswith(_REFERENCE)
    ):
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


def _with_unit(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds % length == 0 and seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _plain(number: float | str) -> str:
    """Write 4.0 as 4, and any other number so that it is read as the same."""
    whole = isinstance(number, float) and number.is_integer() and abs(number) < _EXACT
    return str(int(number)) if whole else str(number)


def _as_time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).astimezone().isoformat(timespec="seconds")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


_READERS: dict[Control, Callable[[Field, str, datetime], Any]] = {
    Control.NUMBER: _number,
    Control.CHOICE: _choice,
    Control.SWITCH: _switch,
    Control.NAMES: _list,
    Control.LINES: _list,
    Control.JOBS: _jobs,
    Control.DURATION: _duration,
    Control.MOMENT: _moment,
    Control.JSON: _json,
    Control.LONG_TEXT: _exact,
}

_WRITERS: dict[Control, Callable[[Any], str]] = {
    Control.NUMBER: _plain,
    Control.CHOICE: choice_text,
    Control.SWITCH: choice_text,
    Control.NAMES: ",".join,
    Control.JOBS: lambda jobs: ", ".join(map(str, jobs)),
    Control.LINES: lambda texts: "\n".join(map(as_line, texts)),
    Control.DURATION: _with_unit,
    Control.MOMENT: _as_time,
    Control.JSON: lambda value: json.dumps(value, ensure_ascii=False),
}
