"""Waiting for jobs to end, without a thread or a query for each who waits.

The rule it protects: nobody waits, nothing runs. While somebody does, one task looks at the
ledger's pulse every ``EVERY`` seconds and asks for the states of the awaited jobs, in one query,
only if there was a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

EVERY = 0.05

ReadEnded = Callable[[Collection[int]], Collection[int]]


class Ended:
    """Becomes true when a job has ended, or the daemon is about to."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self._event.is_set()

    def set(self) -> None:
        """End the wait."""
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Wait at most ``seconds``; return whether there is nothing more to wait for."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        return True


class JobWatch:
    """Tells waiters when their job has ended. Lives in one event loop.

    ``changed`` says whether the ledger has changed since the last call; ``read_ended`` returns
    those of some jobs that have ended, and is called in a thread.
    """

    def __init__(
        self, changed: Callable[[], bool], read_ended: ReadEnded, *, every: float = EVERY
    ) -> None:
        self._changed = changed
        self._read_ended = read_ended
        self._every = every
        self._waiting: dict[int, set[Ended]] = {}
        self._stale = False
        self._task: asyncio.Task[None] | None = None
        self.closing = False

    @contextmanager
    def job(self, number: int) -> Iterator[Ended]:
        """Give a flag that is set when job ``number`` ends after this call.

        The caller looks at the job after it has entered, so that no end falls in between.
        """
        ended = Ended()
        if self.closing:
            ended.set()
        self._waiting.setdefault(number, set()).add(ended)
        self._stale = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look())
        try:
            yield ended
        finally:
            self._forget(number, ended)

    def close(self) -> None:
        """End every wait; later ones end at once."""
        self.closing = True
        for waiters in self._waiting.values():
            for ended in waiters:
                ended.set()

    def _forget(self, number: int, ended: Ended) -> None:
        waiters = self._waiting[number]
        waiters.discard(ended)
        if not waiters:
            del self._waiting[number]

    async def _look(self) -> None:
        while self._waiting and not self.closing:
            if self._changed() or self._stale:
                self._stale = False
                over = await asyncio.to_thread(self._read_ended, list(self._waiting))
                for number in over:
                    for ended in self._waiting.get(number, ()):
                        ended.set()
            await asyncio.sleep(self._every)
