"""What one run of ``studioq bench`` measured, as values and as the JSON file that keeps it.

The rule this module protects: a file says all that is needed to judge its numbers: each job's own
number and not only the median, machine, versions and settings, and the form's own version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from daemon.errors import UsageError

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number: a value for each repeat, and the jobs that gave them.

    ``key`` names it across runs (``diffuse.seconds_per_picture@4``: at batch 4). ``jobs`` is empty
    for what no job measured.
    """

    key: str
    unit: str
    values: tuple[float, ...]
    jobs: tuple[int, ...] = ()
    lower_is_better: bool = False

    @property
    def median(self) -> float:
        """The middle one of the values."""
        return median(self.values)

    @property
    def spread(self) -> float:
        """How far the farthest value is from the median, as a share of it."""
        middle = self.median
        return max(abs(value - middle) for value in self.values) / middle if middle else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as JSON; median and spread stand there for readers alone."""
        derived = {"repeats": len(self.values), "median": self.median, "spread": self.spread}
        return {**asdict(self), **derived}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Figure:
        """Return the figure that ``to_dict`` wrote."""
        return cls(
            key=str(data["key"]),
            unit=str(data["unit"]),
            values=_numbers(data["values"]),
            jobs=tuple(int(number) for number in data["jobs"]),
            lower_is_better=bool(data["lower_is_better"]),
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """One table's figures, with what they were measured on.

    ``table``: ``train``, ``infer`` or ``diffuse``. ``settings`` are the jobs' options that decide
    speed, ``facts`` what the jobs recorded of the model. ``failures`` say what has no number.
    """

    table: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def figure(self, name: str) -> Figure | None:
        """Return the figure ``TABLE.name``, or that of another program by its whole key."""
        keys = {f"{self.table}.{name}", name}
        return next((figure for figure in self.figures if figure.key in keys), None)

    def median(self, name: str) -> float | None:
        """Return a figure's median, None where it was not measured."""
        found = self.figure(name)
        return None if found is None else found.median

    def batches(self) -> list[int]:
        """Return the batch sizes that have figures, ascending."""
        named = {figure.key.partition("@")[2] for figure in self.figures}
        return sorted(int(batch) for batch in named if batch)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {**asdict(self), "figures": [figure.to_dict() for figure in self.figures]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """Return the result that ``to_dict`` wrote."""
        return cls(
            table=str(data["table"]),
            model=str(data["model"]),
            settings=dict(data["settings"]),
            facts=dict(data["facts"]),
            figures=tuple(Figure.from_dict(figure) for figure in data["figures"]),
            failures=tuple(data["failures"]),
            notes=tuple(data["notes"]),
        )


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was measured on. ``bandwidth`` is bytes a second, its ``source`` says whence.

    ``kind``: ``metal``, ``cuda`` or ``cpu``; ``versions``: of the packages that compute, by name.
    """

    device: str
    kind: str = ""
    platform: str = ""
    processors: int = 0
    bandwidth: float | None = None
    bandwidth_source: str = "unknown"
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run: when, where, and its results. ``quick``: with the small counts of ``--quick``."""

    date: str
    machine: Machine
    results: tuple[Result, ...]
    quick: bool = False

    @property
    def failed(self) -> bool:
        """Whether a number is missing because something failed."""
        return any(result.failures for result in self.results)

    def result(self, table: str) -> Result | None:
        """Return the result of a table, None where it was not run."""
        return next((result for result in self.results if result.table == table), None)

    def figures(self) -> Iterator[tuple[Result, Figure]]:
        """Yield every figure with the result that it belongs to."""
        for result in self.results:
            for figure in result.figures:
                yield result, figure

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return {
            "schema": SCHEMA,
            "date": self.date,
            "quick": self.quick,
            "machine": asdict(self.machine),
            "results": [result.to_dict() for result in self.results],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Return the record that ``to_dict`` wrote."""
        return cls(
            date=str(data["date"]),
            quick=bool(data["quick"]),
            machine=Machine(**data["machine"]),
            results=tuple(Result.from_dict(result) for result in data["results"]),
        )


def read_record(path: Path) -> Record:
    """Read what ``--save`` wrote.

    Raises:
        UsageError: the file cannot be read, is no record, or has a form of another version.
    """
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise UsageError(f"{path} cannot be read: {reason}", remedy=_REMEDY) from None
    form = data.get("schema") if isinstance(data, dict) else None
    if form != SCHEMA:
        raise UsageError(
            f"{path} has the form {form!r}; this studioq reads form {SCHEMA}", remedy=_REMEDY
        )
    try:
        return Record.from_dict(data)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is no record of studioq bench: {type(error).__name__}: {error}",
            remedy=_REMEDY,
        ) from None


def write_record(path: Path, record: Record) -> None:
    """Write the record as JSON."""
    text = json.dumps(record.to_dict(), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


_REMEDY = "give a file that studioq bench --save wrote, or the word tutorial"


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if not numbers:
        raise ValueError("a figure without values")
    return numbers
