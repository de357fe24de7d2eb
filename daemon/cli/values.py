"""Kinds of option values: job numbers, durations, times, numbers, model names.

The rule it protects: the client refuses only what it cannot read. What is allowed is said by the
daemon, in one place (``daemon.specs``).
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # older versions of click know no ParamType[…]

# More than any job's number has; the daemon says which jobs there are.
_MOST_DIGITS = 40

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def parse_duration(text: str) -> float:
    """Return the seconds that ``90s``, ``15m``, ``2h`` or ``1h30m`` say.

    Raises:
        ValueError: the text is no duration.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write 90s, 15m, 2h or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def parse_time(text: str, now: datetime) -> datetime:
    """Return the moment that an ISO time (local unless it names a zone), ``+2h`` or ``-7d`` means.

    Raises:
        ValueError: the text is no time.
    """
    if text[:1] in {"+", "-"}:
        offset = timedelta(seconds=parse_duration(text[1:]))
        return now + offset if text[0] == "+" else now - offset
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time; write 2026-12-24T18:00, or +2h") from None
    return moment.astimezone(UTC)


class Value(_ParamType, ABC):
    """A kind of value whose ``read`` raises ValueError with what to write instead."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Return what the text means."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the text means, or tell the user."""
        try:
            return self.read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Duration(Value):
    """Seconds, written with their unit."""

    name = "duration"

    def read(self, value: Any) -> float:
        """Return seconds."""
        return value if isinstance(value, float) else parse_duration(value)


class Moment(Value):
    """A point in time, in seconds since the epoch."""

    name = "time"

    def read(self, value: Any) -> float:
        """Return seconds since the epoch."""
        if isinstance(value, float):
            return value
        try:
            return parse_time(value, datetime.now(UTC)).timestamp()
        except OverflowError:
            raise ValueError(f"{value!r} is further away than a calendar reaches") from None


class Number(Value):
    """A finite number (``nan`` and ``inf`` cannot travel as JSON)."""

    name = "float"

    def read(self, value: Any) -> float:
        """Return a float."""
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a number") from None
        if not math.isfinite(number):
            raise ValueError(f"{value!r} is not a finite number")
        return number


class CountOr(Value):
    """A number of something, or a word in its place."""

    def __init__(self, of: str, word: str) -> None:
        self.name = f"integer|{word}"
        self._of, self._word = of, word

    def read(self, value: Any) -> int | str:
        """Return a number or the word."""
        if value == self._word:
            return self._word
        try:
            return int(value)
        except ValueError:
            raise ValueError(
                f"{value!r} is neither a number of {self._of} nor {self._word}"
            ) from None


class CommaList(Value):
    """Names with commas between them."""

    name = "name,name"

    def read(self, value: Any) -> list[str]:
        """Return the names."""
        return value if isinstance(value, list) else [part.strip() for part in value.split(",")]


class JobNumber(Value):
    """A job's number; completed from the daemon's list."""

    name = "n"

    def read(self, value: Any) -> int:
        """Return the number."""
        text = str(value).removeprefix("job:")
        readable = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
        if not readable or int(text) < 1:
            shown = value if len(str(value)) <= _MOST_DIGITS else f"{text[:_MOST_DIGITS]}…"
            raise ValueError(f"{shown!r} is not a job's number; studioq list shows them")
        return int(text)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the numbers of the listed jobs."""
        from daemon.cli.completion import complete_jobs

        return complete_jobs(ctx, incomplete)


class ModelName(Value):
    """A model's name; completed from the daemon's list."""

    name = "model"

    def read(self, value: Any) -> str:
        """Return the name."""
        return str(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the names of the models that are here."""
        from daemon.cli.completion import complete_models

        return complete_models(ctx, incomplete)


JOB = JobNumber()
MODEL = ModelName()
DURATION = Duration()
MOMENT = Moment()
NUMBER = Number()
LAYERS = CountOr("layers", "all")
BATCH = CountOr("pictures", "auto")
NAMES = CommaList()

job_argument = click.argument("number", metavar="N", type=JOB)
jobs_argument = click.argument("numbers", metavar="N...", type=JOB, nargs=-1, required=True)
