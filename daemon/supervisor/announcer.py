"""Telling Redis what the ledger has queued, without anybody waiting for it.

The rule this module protects: a submission never depends on Redis. What comes while a push is under
way is pushed together next; what cannot be pushed is the reconciler's.
"""

from __future__ import annotations

import logging
import queue
import threading

log = logging.getLogger(__name__)

Dispatch = tuple[int, int]


class Announcer:
    """A thread that pushes (job, dispatch) pairs. The Redis client is imported in it."""

    def __init__(self, url: str, ledger_id: str) -> None:
        self._url = url
        self._ledger_id = ledger_id
        self._pending: queue.SimpleQueue[tuple[Dispatch, ...] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        """Begin to push."""
        self._thread.start()

    def announce(self, *dispatches: Dispatch) -> None:
        """Queue these pairs; none of them: only wake the worker."""
        self._pending.put(dispatches)

    def close(self) -> None:
        """Push what is left and end."""
        self._pending.put(None)
        self._thread.join()

    def _run(self) -> None:
        from daemon.queue.connection import connect
        from daemon.queue.dispatch import push

        connection = connect(self._url)
        last = False
        while not last:
            batch, last = self._next_batch()
            try:
                if batch is not None:
                    push(connection, self._ledger_id, batch)
            except Exception:
                log.exception("action=push_failed jobs=%d", len(batch or ()))
        connection.close()

    def _next_batch(self) -> tuple[list[Dispatch] | None, bool]:
        """Wait for pairs and take what else has come; True when it is time to end."""
        batch: list[Dispatch] | None = None
        item = self._pending.get()
        while item is not None:
            batch = [*(batch or []), *item]
            try:
                item = self._pending.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True
