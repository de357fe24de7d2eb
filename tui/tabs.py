"""The tabs of a job's detail, in their order.

The rule this module protects: a tab's libraries are imported when it is opened for the first time,
so that the queue is on the screen at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tui.pane import Connect, JobPane
from tui.summary import SummaryPane


@dataclass(frozen=True, kw_only=True)
class Tab:
    """A tab: its name in ids and bindings, its title, and what imports its pane."""

    name: str
    title: str
    load: Callable[[], type[JobPane]]

    def make(self, connect: Connect) -> JobPane:
        """Return a new pane."""
        return self.load()(connect, id=self.name)


def _log() -> type[JobPane]:
    from tui.log.pane import LogPane

    return LogPane


def _metrics() -> type[JobPane]:
    from tui.metrics.pane import MetricsPane

    return MetricsPane


def _outputs() -> type[JobPane]:
    from tui.outputs.pane import OutputsPane

    return OutputsPane


TABS: tuple[Tab, ...] = (
    Tab(name="summary", title="Summary", load=lambda: SummaryPane),
    Tab(name="log", title="Log", load=_log),
    Tab(name="metrics", title="Metrics", load=_metrics),
    Tab(name="outputs", title="Outputs", load=_outputs),
)
