"""Watching a few jobs until they end: one live line on a terminal, plain lines elsewhere.

The rule it protects: in a pipe or a log file every line is whole and says something new.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from daemon.cli import units
from daemon.cli.states import note, state_word
from daemon.cli.table import clip, terminal_width

if TYPE_CHECKING:
    from daemon.client import Client

# Seconds between two looks, and the width of the bar in cells.
_EVERY = 0.5
_BAR = 24

_CLEAR = "\r\x1b[2K"  # to the line's beginning, and nothing behind it

# Plain lines tell of every tenth of the work.
_TENTHS = 10


@dataclass(kw_only=True)
class View:
    """Where the lines go. ``live`` redraws one line; else a line is written when it is new.

    A reason that does not fit the live line is written out above it, once.
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    live: bool = False
    width: int = 80
    _told: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def of_terminal(cls) -> View:
        """Return the view that fits this process's stderr."""
        width = terminal_width(sys.stderr)
        return cls(live=width is not None, width=width or 80)

    def show(self, job: Any) -> None:
        """Show how a job stands."""
        if self.live:
            self._write_out(job)
            self._write(_CLEAR + clip(line(job), self.width - 1), end="")
            return
        news = _news(job)
        if self._told.get(job["id"]) != news:
            self._told[job["id"]] = news
            self._write(line(job))

    def _write_out(self, job: Any) -> None:
        reason = (job["reason"],)
        fits = len(line(job)) < self.width
        if job["reason"] and not fits and self._told.get(job["id"]) != reason:
            self._told[job["id"]] = reason
            self._write(f"{_CLEAR}job {job['id']}: {job['reason']}")

    def finish(self, job: Any) -> None:
        """Show how a job ended, and leave the line."""
        self.show(job)
        if self.live:
            self._write("")

    def _write(self, text: str, end: str = "\n") -> None:
        self.stream.write(text + end)
        self.stream.flush()


def _news(job: Any) -> tuple[Any, ...]:
    """Return what makes a plain line worth writing."""
    progress = job.get("progress") or {}
    total = progress.get("total") or 0
    tenths = (progress.get("done") or 0) * _TENTHS // total if total else 0
    return job["state"], job["reason"], tenths


def line(job: Any) -> str:
    """Return one line: the job's name, state, bar, loss, and what it waits for or has left."""
    loss = job["metrics"].get("train_loss") if job["state"] == "running" else None
    parts = [
        f"job {job['id']}",
        job["name"] or job["kind"],
        state_word(job["state"]),
        _bar(job) if job["state"] == "running" else "",
        "" if loss is None else f"loss {units.number(loss)}",
        note(job),
    ]
    return "  ".join(part for part in parts if part)


def _bar(job: Any) -> str:
    progress = job.get("progress") or {}
    done, total = progress.get("done"), progress.get("total")
    if not total or done is None:
        return ""
    filled = min(_BAR, _BAR * done // total)
    return f"[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{total}"


def watch(
    client: Client,
    numbers: Sequence[int],
    view: View,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Any]:
    """Show each job in turn until it has ended, and return them as they ended."""
    ended = []
    for number in numbers:
        while (job := client.job(number))["ended_at"] is None:
            view.show(job)
            sleep(_EVERY)
        view.finish(job)
        ended.append(job)
    return ended
