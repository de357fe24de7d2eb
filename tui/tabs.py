"""The tabs of a job's detail, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tui.pane import Connect, JobPane
from tui.summary import SummaryPane


@dataclass(frozen=True, kw_only=True)
class Tab:
    """A tab: its name in ids and bindings, its title, and what makes its pane."""

    name: str
    title: str
    make: Callable[[Connect], JobPane]


def _summary(connect: Connect) -> JobPane:
    return SummaryPane(connect, id="summary")


TABS: tuple[Tab, ...] = (Tab(name="summary", title="Summary", make=_summary),)
