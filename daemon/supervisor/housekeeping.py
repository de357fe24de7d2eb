"""What is looked at regularly: start times, the Redis queue, uploads and folders nobody uses.

The rule this module protects: a look that finds nothing writes nothing. Each question is a read;
the writer is called only when there is something to change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from redis import Redis

from daemon import defaults, targets
from daemon.filestore import FileStore
from daemon.ledger import jobs, queries
from daemon.ledger.states import ENDED
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Job
from daemon.ledger.uploads import expire_uploads
from daemon.ledger.writer import Writer
from daemon.logs import note
from daemon.targets import Staging

log = logging.getLogger(__name__)

PRUNE_EVERY = 3600.0


@dataclass(kw_only=True)
class Housekeeping:
    """The daemon's regular duties; ``tick`` does those that are due. For one thread.

    ``models`` is the first model root, the one that jobs write into.
    """

    ledger: Ledger
    writer: Writer
    store: FileStore
    models: Path
    url: str
    ledger_id: str
    announce: Callable[..., None]
    clock: Callable[[], float]
    _next_look: float = field(default=0.0, init=False)
    _next_prune: float = field(default=0.0, init=False)
    _thorough: bool = field(default=True, init=False)
    _connection: Redis | None = field(default=None, init=False)

    def start(self) -> None:
        """Look at every waiting job once, whatever an earlier daemon has left undone."""
        self.writer.write(partial(jobs.settle_waiting, now=self.clock()))

    def close(self) -> None:
        """Close the connection to Redis."""
        if self._connection is not None:
            self._connection.close()

    def hurry(self) -> None:
        """Look at the queue at the next tick, and at every entry: Redis has just come up."""
        self._next_look = 0.0
        self._thorough = True

    def tick(self, now: float, *, redis_ready: bool) -> None:
        """Do what is due at ``now``, seconds of a clock that never goes back.

        Only the look at Redis waits for Redis.
        """
        self._start_due_jobs()
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_EVERY
            self.writer.write(self._prune)
            self._remove_left_models()
        if redis_ready and now >= self._next_look:
            self._next_look = now + defaults.RECONCILE_EVERY
            self._reconcile()

    def _start_due_jobs(self) -> None:
        now = self.clock()
        with self.ledger.reading() as session:
            due = queries.has_due_jobs(session, now=now)
        if due:
            self.announce(*self.writer.write(partial(_settle, now=now)))

    def _reconcile(self) -> None:
        from daemon.queue.reconcile import reconcile

        if self._connection is None:
            from daemon.queue.connection import connect

            self._connection = connect(self.url)
        result = reconcile(self._connection, self.ledger_id, self._queued, thorough=self._thorough)
        self._thorough = result is None

    def _queued(self) -> list[tuple[int, int]]:
        with self.ledger.reading() as session:
            return list(jobs.queued_dispatches(session))

    def _prune(self, session: Session) -> None:
        """Delete expired uploads; in the writer, so that no new upload comes between."""
        for sha256 in expire_uploads(session, now=self.clock()):
            self.store.remove(sha256)

    def _remove_left_models(self) -> None:
        """Remove what is left of models that jobs put together and will not go on with.

        Names are changed in the writer, in which no job can be queued again meanwhile; the removal,
        which takes its time, comes after it.
        """
        if found := targets.staging_folders(self.models):
            self.writer.write(partial(_set_aside_ended, found=found))
        targets.remove_set_aside(self.models)


def _set_aside_ended(session: Session, *, found: Collection[Staging]) -> None:
    for staging in found:
        job = session.get(Job, staging.job)
        if job is None or job.state in ENDED:
            with suppress(OSError):  # it is tried again in an hour
                targets.set_aside(staging)
                note(log, "left_model_removed", job=staging.job, folder=staging.path)


def _settle(session: Session, *, now: float) -> list[tuple[int, int]]:
    return jobs.queued_among(session, jobs.settle_waiting(session, now=now))
