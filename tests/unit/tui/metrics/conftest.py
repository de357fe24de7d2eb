"""The metrics tab of a served studio, in an app of its own."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import OptionList, Static, TabbedContent, TabPane

from tests.unit.tui.conftest import Studio, paths, stage, studio
from tui.metrics import MetricsPane
from tui.metrics.board import Board
from tui.metrics.picker import JobPicker
from tui.metrics.plot import CurvePlot, Plot
from tui.pane import Connect

if TYPE_CHECKING:
    from daemon.client.answers import JobLine, Metric

__all__ = ["paths", "stage", "studio"]

PATIENCE = 20.0
SPEC = {"model": "smol", "data": {"train": {"name": "rows.jsonl", "sha256": "ab" * 32}}}


def row(number: int, step: int, name: str, value: float, attempt: int = 1) -> Metric:
    """A row of the daemon's answer."""
    at = "2026-01-01T00:00:00Z"
    return {"id": number, "attempt": attempt, "step": step, "name": name, "value": value, "at": at}


def add_training(studio: Studio, **spec: Any) -> int:
    """Queue a training."""
    return studio.add("train", spec=SPEC | spec, name="lora", user="ana")


def measure(studio: Studio, number: int, first: int = 1, last: int = 60) -> None:
    """Report as a training does, at every tenth step."""
    for step in range(10 * first, 10 * last + 1, 10):
        values = {
            "train_loss": 1 + math.exp(-step / 100),
            "it_per_sec": 2.0,
            "tokens_per_sec": 800.0 + step % 70,
            "learning_rate": 1e-5,
            "peak_memory_bytes": 74e9,
            "active_memory_bytes": 61e9,
            "cache_memory_bytes": 3e9,
        }
        studio.metric(number, step, **values)
        if step % 100 == 0:
            studio.metric(number, step, val_loss=1.2 + math.exp(-step / 100))


class Shown(App[None]):
    """The tab where it will be: in tabs."""

    CSS = "TabbedContent, ContentSwitcher, TabPane { height: 1fr; } TabPane { padding: 0; }"

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self._connect = connect

    def compose(self) -> ComposeResult:
        with TabbedContent(), TabPane("Metrics"):
            yield MetricsPane(self._connect, id="metrics")


@dataclass(kw_only=True)
class Seat:
    """Somebody who looks at the tab."""

    studio: Studio
    app: Shown
    pilot: Pilot[None]
    seen: list[str] = field(default_factory=list)

    @property
    def pane(self) -> MetricsPane:
        return self.app.screen_stack[0].query_one(MetricsPane)

    @property
    def board(self) -> Board:
        return self.pane.query_one(Board)

    @property
    def titles(self) -> list[str]:
        """The titles of the plots that are shown."""
        plots = [plot for plot in self.pane.query(Plot) if plot.display]
        return [
            str(title.render()) for plot in plots for title in plot.query(".title").results(Static)
        ]

    def plot(self, key: str) -> CurvePlot:
        (found,) = [plot for plot in self.pane.query(Plot) if plot.display and plot.key == key]
        return found.query_one(CurvePlot)

    def text(self, name: str) -> str:
        """What a line or table of the tab says; nothing while it is hidden."""
        widget = next(iter(self.pane.query(f".{name}").results(Static)), None)
        if widget is None or not widget.display:
            return ""
        lines = [widget.render_line(y).text for y in range(widget.size.height)]
        return "\n".join(line.rstrip() for line in lines)

    def line(self, number: int) -> JobLine:
        """The job's line, as the table has it."""
        with self.studio.connect() as client:
            lines = client.jobs(everything=True)["jobs"]
        return next(line for line in lines if line["id"] == number)

    async def show(self, number: int) -> None:
        """Show a job, and wait for its first metrics."""
        self.pane.show_job(self.line(number))
        self.pane.focus()
        await self.until(lambda: bool(self.pane.query(Board)) and self.board.display)
        await self.until(lambda: self.drawn or bool(self.text("values")))

    @property
    def drawn(self) -> bool:
        """Whether all plots that are shown have been drawn."""
        plots = [plot.query(CurvePlot) for plot in self.pane.query(Plot) if plot.display]
        return bool(plots) and all(found and found.first().drawing for found in plots)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def compare(self) -> None:
        """Open the list of jobs and choose the first."""
        await self.press("c")
        await self.until(lambda: isinstance(self.app.screen, JobPicker))
        jobs = self.app.screen.query_one(OptionList)
        await self.until(lambda: jobs.option_count > 0)
        await self.press("enter")
        await self.until(lambda: "whose spec" in self.text("status"))

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            await self.pilot.pause(0.01)


@asynccontextmanager
async def seated(
    studio: Studio, *, size: tuple[int, int] = (64, 30), connect: Connect | None = None
) -> AsyncIterator[Seat]:
    """Run the app."""
    app = Shown(connect or studio.connect)
    async with app.run_test(size=size) as pilot:
        yield Seat(studio=studio, app=app, pilot=pilot)


@pytest.fixture
def trained(studio: Studio) -> int:
    """A training that has ended."""
    number = add_training(studio)
    studio.start(number)
    measure(studio, number)
    studio.end(number)
    return number
