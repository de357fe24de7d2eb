"""The columns of the table: what stands in them, how they sort, and which fit.

The rule this module protects: a row is always one line of the width that there is. Columns give way
in a fixed order, the note last takes what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from daemon.cli.states import STATES, done, note, visible
from daemon.cli.units import duration, running_seconds

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

GLYPHS = dict(zip(STATES, "◇◌○●◐✓✗⊘", strict=True))
_PRIORITIES = {"low": 0, "normal": 1, "high": 2}
_PRIORITY_MARKS = {"high": "▲", "low": "▽"}
# Running first, then what comes to run, then what has ended.
_STATE_ORDER = (
    "running",
    "paused",
    "queued",
    "waiting",
    "held",
    "failed",
    "cancelled",
    "succeeded",
)
GAP = 1


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: ``text`` of a job at a time, ``key`` to sort by, width in cells.

    ``share``: of what is left once every column has its width. ``rank``: the highest goes first
    where there is no room; 0 stays always.
    """

    name: str
    title: str
    text: Callable[[JobLine, datetime], str]
    key: Callable[[JobLine, datetime], Any]
    width: int
    right: bool = False
    share: int = 0
    rank: int = 0


def _title(job: JobLine) -> str:
    model, made = job["model"] or "", job.get("to")
    text = job["name"] or (f"{model} → {made}" if made else model)
    return visible(text.replace("\n", " ").replace("\t", " "))


def _state(job: JobLine, _: datetime) -> str:
    return f"{GLYPHS.get(job['state'], '?')} {job['state']}"


def _ran(job: JobLine, now: datetime) -> str:
    return duration(running_seconds(job, now))


def _note(job: JobLine, _: datetime) -> str:
    place = job["position"]
    text = note(job)
    if job["state"] == "queued" and place is not None and place > 1:
        text = f"{place}. in line" if not text else f"{place}. in line, {text}"
    return visible(_PRIORITY_MARKS.get(job["priority"], "") + text.replace("\n", " "))


def _share_done(job: JobLine) -> float:
    progress = job["progress"]
    if not progress or not progress["total"] or progress["done"] is None:
        return -1.0
    return progress["done"] / progress["total"]


COLUMNS: tuple[Column, ...] = (
    Column(
        name="number",
        title="#",
        text=lambda job, _: str(job["id"]),
        key=lambda job, _: job["id"],
        width=5,
        right=True,
    ),
    Column(
        name="state",
        title="state",
        text=_state,
        key=lambda job, _: (_STATE_ORDER.index(job["state"]), job["position"] or 0),
        width=11,
    ),
    Column(
        name="kind",
        title="kind",
        text=lambda job, _: job["kind"],
        key=lambda job, _: job["kind"],
        width=7,
        rank=3,
    ),
    Column(
        name="user",
        title="user",
        text=lambda job, _: visible(job["user"]),
        key=lambda job, _: job["user"].casefold(),
        width=8,
        rank=2,
    ),
    Column(
        name="name",
        title="name",
        text=lambda job, _: _title(job),
        key=lambda job, _: _title(job).casefold(),
        width=10,
        share=1,
    ),
    Column(
        name="done",
        title="done",
        text=lambda job, _: done(job),
        key=lambda job, _: _share_done(job),
        width=4,
        right=True,
        rank=1,
    ),
    Column(
        name="ran",
        title="ran",
        text=_ran,
        key=lambda job, now: running_seconds(job, now) or 0.0,
        width=5,
        right=True,
        rank=4,
    ),
    Column(
        name="note",
        title="note",
        text=_note,
        key=lambda job, now: _note(job, now).casefold(),
        width=9,
        share=2,
        rank=5,
    ),
)
BY_NAME = {column.name: column for column in COLUMNS}


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A column that is shown, and the cells it has."""

    column: Column
    width: int


def fit(width: int, widest: int = 0) -> tuple[Fitted, ...]:
    """Return the columns that fit ``width`` cells, and their widths.

    ``widest``: the digits of the largest number there is.
    """
    shown = list(COLUMNS)
    least = {column.name: column.width for column in shown}
    least["number"] = max(3, widest)
    while len(shown) > 1 and _taken(shown, least) > width:
        last = max(shown, key=lambda column: column.rank)
        if last.rank == 0:
            break
        shown.remove(last)
    spare = max(0, width - _taken(shown, least))
    shares = sum(column.share for column in shown)
    fitted, given = [], 0
    for column in shown:
        extra = spare * column.share // shares if shares else 0
        given += extra
        fitted.append(Fitted(column=column, width=least[column.name] + extra))
    return tuple(fitted)


def _taken(columns: list[Column], least: dict[str, int]) -> int:
    return sum(least[column.name] for column in columns) + GAP * (len(columns) - 1)
