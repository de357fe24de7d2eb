"""What an attempt has reported and the ledger does not have yet.

The rule this module protects: nothing is forgotten before it is written. The recorder reads a
buffer, commits, and only then calls ``forget``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from daemon import defaults
from daemon.ledger.attempts import File
from workers.events import Progress

# Seconds that metrics and facts may wait for each other before they are written.
TICK = 0.1

MetricRow = tuple[int, str, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingCheckpoint:
    """A checkpoint whose files are being hashed."""

    step: int
    folder: str
    files: Sequence[Future[File]]

    def ready(self) -> bool:
        """Return whether every file has been examined."""
        return all(file.done() for file in self.files)


@dataclass(kw_only=True, slots=True)
class Buffer:
    """Events of one attempt that wait to be written.

    ``fresh`` until the first of them is; ``published`` holds the names of checkpoint files that
    have rows already.
    """

    log: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    progress: Progress | None = None
    metrics: list[MetricRow] = field(default_factory=list)
    facts: dict[str, str | int | float | bool] = field(default_factory=dict)
    checkpoints: deque[PendingCheckpoint] = field(default_factory=deque)
    artifacts: dict[str, Future[File]] = field(default_factory=dict)
    published: set[str] = field(default_factory=set)
    fresh: bool = True
    written_at: float = 0.0

    def add_metrics(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Add numbers measured at ``step``."""
        self.metrics.extend((step, name, value, at) for name, value in values.items())

    def ready_checkpoints(self) -> list[PendingCheckpoint]:
        """Return the checkpoints that can be written, in order."""
        ready = []
        for checkpoint in self.checkpoints:
            if not checkpoint.ready():
                break
            ready.append(checkpoint)
        return ready

    def due_in(self, clock: float) -> float | None:
        """Return the seconds until something should be written, None if nothing waits."""
        if self.log or self.text or self.ready_checkpoints():
            return 0.0
        waiting = self.progress is not None or self.metrics or self.facts
        if not waiting:
            return TICK if self.checkpoints else None
        pause = TICK if self.metrics or self.facts else defaults.PROGRESS_EVERY
        return 0.0 if self.fresh else max(0.0, self.written_at + pause - clock)

    def has_rows(self) -> bool:
        """Return whether there is something for the ledger."""
        rows = self.progress is not None or self.metrics or self.facts
        return bool(rows or self.ready_checkpoints())

    def has_more_than_progress(self) -> bool:
        """Return whether there is something for the ledger that an ending does not carry."""
        return bool(self.metrics or self.facts or self.checkpoints)

    def settled(self) -> bool:
        """Return whether every file has been examined, so that the attempt can end."""
        examined = all(file.done() for file in self.artifacts.values())
        return examined and all(checkpoint.ready() for checkpoint in self.checkpoints)

    def forget(self, checkpoints: int, clock: float) -> None:
        """Drop what has been committed: all rows, and the first ``checkpoints``."""
        self.progress = None
        self.metrics.clear()
        self.facts.clear()
        for _ in range(checkpoints):
            written = self.checkpoints.popleft()
            self.published.update(file.result().name for file in written.files)
        self.fresh = False
        self.written_at = clock

    def clear(self) -> None:
        """Drop everything: the attempt may write nothing more."""
        self.log.clear()
        self.text.clear()
        self.checkpoints.clear()
        self.artifacts.clear()
        self.forget(0, self.written_at)
