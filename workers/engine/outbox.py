"""Events on their way to the worker: many small ones become few.

The rule this module protects: nothing is held back for longer than ``BUNDLE_EVERY``, also while the
job computes, and the events of an attempt keep their order. The first of a series goes at once;
then only the newest progress and the joined text of each interval are sent.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from workers.events import Event, Progress, SafePoint, Text
from workers.protocol import Happened, Over, encode

# Seconds between two bundles of an attempt: text still seems to flow, and 25 messages a second
# cost worker and engine less than a thousandth of a core's time each.
BUNDLE_EVERY = 0.04


@dataclass(slots=True)
class _Bundle:
    """What waits for one attempt: joined text and the line of its newest progress."""

    text: str = ""
    text_at: float = 0.0
    progress: bytes = b""
    sent: float = -math.inf

    def waits(self) -> bool:
        return bool(self.text or self.progress)


class Outbox:
    """Bundles the events of all attempts; ``send_line`` gets finished lines.

    ``clock`` measures intervals, ``now`` dates events, both in seconds.
    """

    def __init__(
        self,
        send_line: Callable[[bytes], None],
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._send_line = send_line
        self._clock = clock
        self._now = now
        self._bundles: dict[int, _Bundle] = {}
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start the thread that sends what waits."""
        threading.Thread(target=self._run, name="outbox", daemon=True).start()

    def post(self, attempt: int, event: Event) -> None:
        """Send an event now or with the next bundle.

        Raises:
            ValueError: a number in it is not finite.
        """
        if isinstance(event, SafePoint):
            return
        with self._changed:
            bundle = self._bundles.setdefault(attempt, _Bundle())
            if not isinstance(event, Progress | Text):
                line = encode(Happened(attempt=attempt, at=self._now(), event=event))
                self._release(attempt, bundle)
                self._send_line(line)
                return
            self._add(attempt, bundle, event)

    def end(self, over: Over) -> None:
        """Send what waits for the attempt, and then that it is over."""
        with self._changed:
            bundle = self._bundles.pop(over.attempt, None)
            if bundle is not None:
                self._release(over.attempt, bundle)
            self._send_line(encode(over))

    def _add(self, attempt: int, bundle: _Bundle, event: Progress | Text) -> None:
        waited = bundle.waits()
        if isinstance(event, Text):
            bundle.text += event.text
            bundle.text_at = self._now()
        else:
            bundle.progress = encode(Happened(attempt=attempt, at=self._now(), event=event))
        if self._clock() >= bundle.sent + BUNDLE_EVERY:
            self._release(attempt, bundle)
        elif not waited:
            self._changed.notify()

    def _release(self, attempt: int, bundle: _Bundle) -> None:
        """Send what waits in ``bundle``; the lock is held."""
        if bundle.text:
            event = Text(text=bundle.text)
            self._send_line(encode(Happened(attempt=attempt, at=bundle.text_at, event=event)))
        if bundle.progress:
            self._send_line(bundle.progress)
        bundle.text, bundle.progress, bundle.sent = "", b"", self._clock()

    def _run(self) -> None:
        with self._changed:
            while True:
                self._changed.wait(self._release_due())

    def _release_due(self) -> float | None:
        """Send what is due; return the seconds until the next is, None if nothing waits."""
        soonest = math.inf
        for attempt, bundle in self._bundles.items():
            if not bundle.waits():
                continue
            left = bundle.sent + BUNDLE_EVERY - self._clock()
            if left <= 0:
                self._release(attempt, bundle)
            else:
                soonest = min(soonest, left)
        return None if math.isinf(soonest) else soonest
