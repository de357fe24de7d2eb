"""An app that holds the Log tab and nothing else, over a served studio."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.pilot import Pilot
from textual.widgets import Footer, Static

from daemon.client.answers import JobLine
from tests.unit.tui.conftest import Studio
from tui.log import LogPane
from tui.log.view import LogView

DEADLINE = 20.0


class LogApp(App[None]):
    """The tab alone."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", id="app.leave")]

    def __init__(self, studio: Studio) -> None:
        super().__init__()
        self.studio = studio
        self.left = 0

    def compose(self) -> ComposeResult:
        yield LogPane(self.studio.connect, id="log")
        yield Footer()

    def action_leave(self) -> None:
        self.left += 1


class Screen:
    """What a test sees of the tab, and how it waits for it."""

    def __init__(self, app: LogApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot
        self.studio = app.studio

    @property
    def pane(self) -> LogPane:
        return self.app.query_one(LogPane)

    @property
    def view(self) -> LogView:
        return self.app.query_one(LogView)

    @property
    def rows(self) -> list[str]:
        """The rows on the screen, without blanks at their ends."""
        return [self.view.render_line(y).text.rstrip() for y in range(self.view.rows)]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    @property
    def says(self) -> str:
        return str(self.app.query_one("#log-says", Static).render())

    @property
    def place(self) -> str:
        return str(self.app.query_one("#log-place", Static).render())

    def line(self, number: int) -> JobLine:
        """Return the job's line as the app would get it."""
        with self.studio.connect() as client:
            return next(line for line in client.jobs()["jobs"] if line["id"] == number)

    async def show(self, number: int, until: str = "") -> None:
        """Show a job and wait until some text is on the screen."""
        self.pane.show_job(self.line(number))
        self.view.focus()
        await self.until(lambda: until in self.text)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + DEADLINE
        while not holds():
            if time.monotonic() > deadline:
                pytest.fail(f"in vain; the screen:\n{self.text}\n{self.says} {self.place}")
            await self.pilot.pause(0.01)
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()


@asynccontextmanager
async def opened(studio: Studio, *, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Screen]:
    """Run the app."""
    app = LogApp(studio)
    async with app.run_test(size=size) as pilot:
        screen = Screen(app, pilot)
        yield screen
        screen.pane.show_job(None)


def numbered(first: int, last: int) -> str:
    """Return the lines ``line 7`` and so on."""
    return "".join(f"line {number}\n" for number in range(first, last + 1))
