"""The served schema, and a form in an app of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, Static

from tests.unit.api.conftest import paths, stage
from tests.unit.tui.conftest import Studio, studio
from tui.forms import NewJobScreen
from tui.forms.fields import Field, fields_of, request_fields
from tui.forms.preview import Preview
from tui.forms.row import FieldRow

__all__ = ["paths", "stage", "studio"]

PATIENCE = 20.0
NOBODY_YET = "nobody has answered"


# What the daemon's API serves; asked for once, since it does not change.
_served: dict[str, Any] = {}


@pytest.fixture
def schema(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the daemon's API serves; only to be read."""
    if not _served:
        studio: Studio = request.getfixturevalue("studio")
        with studio.connect() as client:
            _served.update(client.schema())
    return _served


def all_fields(schema: dict[str, Any], kind: str) -> list[Field]:
    return [*fields_of(schema, kind), *request_fields(schema)]


class Host(App[None]):
    """An app that shows one form and keeps its answer."""

    def __init__(self, form: NewJobScreen) -> None:
        super().__init__()
        self.form = form
        self.answer: object = NOBODY_YET

    def on_mount(self) -> None:
        self.push_screen(self.form, self._keep)

    def _keep(self, answer: int | None) -> None:
        self.answer = answer


@dataclass
class Seat:
    """Somebody at the form."""

    app: Host
    pilot: Pilot[None]

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until a condition holds; return what it gave."""
        deadline = time.monotonic() + PATIENCE
        while not (found := holds()):
            assert time.monotonic() < deadline, f"never came true: {self.standing}"
            await self.pilot.pause(0.01)
        await self.pilot.pause()
        return found

    @property
    def standing(self) -> str:
        """What there is to see, for the message of a test that fails."""
        wrong = [
            f"{row.id}: {row.query_one('.complaint', Static).content}"
            for row in self.form.query(FieldRow)
            if row.is_wrong
        ]
        return f"{self.app.focused!r}, {self.command}, {self.notice}, {wrong}, {self.app.answer}"

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    @property
    def form(self) -> NewJobScreen:
        return self.app.form

    def row(self, name: str, part: str = "spec") -> FieldRow:
        return self.form.query_one(f"#{part}-{name}", FieldRow)

    async def go(self, name: str, part: str = "spec") -> FieldRow:
        """Put the cursor into a field."""
        row = self.row(name, part)
        row.focus_input()
        await self.until(lambda: row.has_focus_within)
        return row

    async def write(self, name: str, text: str, part: str = "spec") -> None:
        """Have a text stand in a line, as pasting does."""
        self.row(name, part).query(Input).first().value = text
        await self.pilot.pause()

    @property
    def command(self) -> str:
        return self.form.query_one(Preview).command

    @property
    def notice(self) -> str:
        return str(self.form.query_one("#notice", Static).content)

    def complaint(self, name: str, part: str = "spec") -> str:
        """What is said beside a field; nothing where all is well."""
        found = self.form.query(f"#{part}-{name}.-wrong > .complaint")
        return str(found.first(Static).content) if found else ""

    @property
    def focused(self) -> str | None:
        """The id of the row that has the focus."""
        widget = self.app.focused
        rows = list(widget.ancestors_with_self) if widget else []
        return next((node.id for node in rows if isinstance(node, FieldRow)), None)


@asynccontextmanager
async def seated(
    studio: Studio,
    *,
    kind: str | None = None,
    start_from: int | None = None,
    size: tuple[int, int] = (80, 24),
    connect: Callable[[], Any] | None = None,
) -> AsyncIterator[Seat]:
    form = NewJobScreen(connect or studio.connect, kind=kind, start_from=start_from)
    app = Host(form)
    async with app.run_test(size=size) as pilot:
        seat = Seat(app, pilot)
        if kind is not None or start_from is not None:
            await seat.until(lambda: seat.focused)
        yield seat


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run one story."""

    async def told() -> None:
        await work()

    asyncio.run(told())
