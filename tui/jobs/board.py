"""Everything the interface knows of the queue, and the part of it that is shown, in order.

The rule this module protects: what changed is put into its place, and nothing is read, sorted or
drawn anew that did not. Knows no terminal and no clock of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tui.jobs.columns import BY_NAME
from tui.jobs.query import Query

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

LIVE = frozenset({"held", "waiting", "queued", "running", "paused"})


@dataclass(frozen=True, kw_only=True)
class Order:
    """By which column, and which way."""

    column: str = "number"
    descending: bool = True

    def next_column(self, names: tuple[str, ...]) -> Order:
        """Return the order by the column after this one."""
        place = names.index(self.column) + 1 if self.column in names else 0
        return Order(column=names[place % len(names)], descending=False)

    def reversed(self) -> Order:
        """Return the same column the other way round."""
        return Order(column=self.column, descending=not self.descending)


class Board:
    """Jobs by number; those that pass the filter, sorted."""

    def __init__(self) -> None:
        self._jobs: dict[int, JobLine] = {}
        self._shown: list[int] = []
        self._places: dict[int, int] = {}
        self.query = Query()
        self.order = Order()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def shown(self) -> list[int]:
        """The numbers of the jobs that pass, in order. Not to be changed."""
        return self._shown

    def get(self, number: int) -> JobLine | None:
        """Return a job, None if it is not known."""
        return self._jobs.get(number)

    def at(self, place: int) -> JobLine:
        """Return the job at a place of what is shown."""
        return self._jobs[self._shown[place]]

    def place_of(self, number: int | None) -> int | None:
        """Return where a job is shown, None if it is not."""
        return None if number is None else self._places.get(number)

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        counts: dict[str, int] = {}
        for job in self._jobs.values():
            counts[job["state"]] = counts.get(job["state"], 0) + 1
        return counts

    def take(self, jobs: Iterable[JobLine], now: datetime) -> bool:
        """Take new and changed jobs; return whether some changed their state or came new."""
        moved, changed = False, False
        for job in jobs:
            old = self._jobs.get(job["id"])
            if old == job:
                continue
            changed = True
            moved = moved or old is None or old["state"] != job["state"]
            self._jobs[job["id"]] = job
        if changed:
            self.arrange(now)
        return moved

    def clear(self) -> None:
        """Forget everything: the daemon has another ledger now."""
        self._jobs.clear()
        self._set_shown([])

    def show(
        self, now: datetime, *, query: Query | None = None, order: Order | None = None
    ) -> None:
        """Filter or sort otherwise."""
        self.query = self.query if query is None else query
        self.order = self.order if order is None else order
        self.arrange(now)

    def arrange(self, now: datetime) -> None:
        """Filter and sort; equal ones newest first."""
        matches = self.query.matches
        passing = [job for job in self._jobs.values() if matches(job)]
        passing.sort(key=lambda job: -job["id"])
        if self.order != Order():
            key = BY_NAME[self.order.column].key
            passing.sort(key=lambda job: key(job, now), reverse=self.order.descending)
        self._set_shown([job["id"] for job in passing])

    def _set_shown(self, numbers: list[int]) -> None:
        self._shown = numbers
        self._places = {number: place for place, number in enumerate(numbers)}
