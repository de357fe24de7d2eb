"""When a process that ended may be started again."""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon import defaults


@dataclass(kw_only=True)
class Backoff:
    """Delays in seconds that grow with each early death and begin anew after a long life."""

    first: float = defaults.RESTART_FIRST
    factor: float = defaults.RESTART_FACTOR
    most: float = defaults.RESTART_MOST
    reset_after: float = defaults.RESTART_RESET_AFTER
    ready_at: float = field(default=0.0, init=False)
    _delay: float = field(default=0.0, init=False)
    _started: float | None = field(default=None, init=False)

    def start(self, now: float) -> None:
        """Note that the process has been started."""
        self._started = now

    def end(self, now: float) -> None:
        """Note that it has ended; sets ``ready_at``."""
        lived = now - self._started if self._started is not None else self.reset_after
        grown = min(self.most, max(self.first, self._delay * self.factor))
        self._delay = self.first if lived >= self.reset_after else grown
        self.ready_at = now + self._delay

    def may_start(self, now: float) -> bool:
        """Return whether the delay has passed."""
        return now >= self.ready_at
