"""The app on a real daemon: every key of the main screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from textual.binding import Binding
from textual.pilot import Pilot
from textual.widgets import Input, Static

from daemon.client import Client
from daemon.ledger.states import AttemptState
from tests.unit.tui.conftest import Studio
from tui.app import StudioqApp
from tui.confirm import Confirm
from tui.detail import Detail
from tui.help import HelpScreen
from tui.jobs.table import JobTable
from tui.meters import Meters
from tui.pane import Connect
from tui.screen import MainScreen
from tui.settings import Settings

PATIENCE = 20.0


class Seat:
    """Somebody in front of the app."""

    def __init__(self, app: StudioqApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def main(self) -> MainScreen:
        return next(screen for screen in self.app.screen_stack if isinstance(screen, MainScreen))

    @property
    def table(self) -> JobTable:
        return self.main.query_one(JobTable)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, f"never came true: {condition}"
            await self.pilot.pause(0.01)
        return found

    def state(self, number: int) -> str:
        job = self.main.board.get(number)
        return "" if job is None else job["state"]


@asynccontextmanager
async def seated(
    studio: Studio,
    jobs: int,
    *,
    size: tuple[int, int] = (120, 36),
    connect: Connect | None = None,
    **options: Any,
) -> AsyncIterator[Seat]:
    app = StudioqApp(connect or studio.connect, **options)
    async with app.run_test(size=size) as pilot:
        seat = Seat(app, pilot)
        await seat.until(lambda: app.main is not None and app.main.status is not None)
        await seat.until(lambda: len(seat.main.board) >= jobs)
        await pilot.pause()
        yield seat


def sit(coroutine: Any) -> None:
    asyncio.run(coroutine)


@pytest.fixture
def four(studio: Studio) -> list[int]:
    """Running, queued of somebody else, succeeded, failed."""
    numbers = [studio.add(name="lora"), studio.add(uid=4711, user="ben", name="poster")]
    numbers += [studio.add(name="done"), studio.add(name="oops")]
    studio.start(numbers[0])
    studio.progress(numbers[0], 3, 8)
    for number, state in ((numbers[2], AttemptState.SUCCEEDED), (numbers[3], AttemptState.FAILED)):
        studio.start(number)
        error = {"code": "job_error", "message": "it broke", "remedy": "mend it", "field": None}
        studio.end(number, state, error=error if state is AttemptState.FAILED else None)
    return numbers


def test_the_cursor_moves_and_the_detail_follows(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        async with seated(studio, 4) as seat:
            assert seat.table.number == four[3]
            await seat.press("down", "j")
            assert seat.table.number == four[1]
            assert "poster" in str(seat.main.query_one(Detail).border_title)
            await seat.press("up", "k", "k")
            assert seat.table.number == four[3]
            await seat.press("end")
            assert seat.table.number == four[0]
            await seat.press("g")
            assert seat.table.number == four[3]
            await seat.press("G", "pageup")
            assert seat.table.number == four[3]
            await seat.press("pagedown")
            assert seat.table.number == four[0]
            await seat.press("enter")
            assert seat.main.query_one(Detail).has_focus_within
            await seat.press("escape")
            assert seat.table.has_focus

    sit(run())


def test_what_changes_is_drawn_and_the_cursor_stays(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        async with seated(studio, 4) as seat:
            await seat.press("end")
            studio.progress(four[0], 6, 8)
            await seat.until(lambda: "75%" in text_of(seat))
            new = studio.add(name="new")
            await seat.until(lambda: seat.state(new) == "queued")
            assert seat.table.number == four[0]
            assert "75%" in text_of(seat)

    sit(run())


def text_of(seat: Seat) -> str:
    """Return what the table shows."""
    table = seat.table
    return "\n".join(table.render_line(y).text for y in range(table.size.height))


def test_the_filter_narrows_while_it_is_typed(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        async with seated(studio, 4) as seat:
            await seat.press("slash", *"user:ben")
            assert seat.main.board.shown == [four[1]]
            assert seat.table.number == four[1]
            await seat.press("enter")
            assert seat.table.has_focus
            assert "1 of 4 · user:ben" in str(seat.main.query_one("#queue").border_subtitle)
            await seat.press("escape")
            assert len(seat.main.board.shown) == 4
            assert not seat.main.query_one("#filter", Input).display
            await seat.press("a")
            assert four[1] not in seat.main.board.shown
            await seat.press("a")
            assert four[1] in seat.main.board.shown

    sit(run())


def test_columns_sort_by_key_and_by_mouse(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        async with seated(studio, 4) as seat:
            await seat.press("s")
            assert seat.main.board.order.column == "state"
            assert seat.main.board.shown[0] == four[0]
            await seat.press("S")
            assert seat.main.board.shown[-1] == four[0]
            await seat.pilot.click(JobTable, offset=(1, 0))
            assert seat.main.board.order.column == "number"
            assert seat.main.board.shown == sorted(four)
            await seat.pilot.click(JobTable, offset=(5, 3))
            assert seat.table.number == sorted(four)[2]

    sit(run())


def test_a_job_is_cancelled_after_a_question(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        async with seated(studio, 4) as seat:
            await seat.press("j", "j", "x")
            assert isinstance(seat.app.screen, Confirm)
            await seat.press("enter")
            assert seat.state(four[1]) == "queued"
            await seat.press("x", "y")
            await seat.until(lambda: seat.state(four[1]) == "cancelled")

    sit(run())


def test_actions_by_key(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        async with seated(studio, 4) as seat:
            await seat.press("r")
            await seat.until(lambda: seat.state(four[3]) == "queued")
            await seat.press("h")
            await seat.until(lambda: seat.state(four[3]) == "held")
            await seat.press("h")
            await seat.until(lambda: seat.state(four[3]) == "queued")
            await seat.press("U")
            await seat.until(lambda: priority(seat, four[3]) == "low")
            await seat.press("u")
            await seat.until(lambda: priority(seat, four[3]) == "normal")
            await seat.press("j", "R")
            await seat.until(lambda: len(seat.main.board) == 5)
            await seat.press("end", "F")
            assert isinstance(seat.app.screen, MainScreen)  # nothing to finish of a noop job

    sit(run())


def priority(seat: Seat, number: int) -> str:
    job = seat.main.board.get(number)
    return "" if job is None else job["priority"]


def test_help_lists_every_binding(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        settings = Settings(keymap={"jobs.sort": "ctrl+s"})
        async with seated(studio, 4, settings=settings) as seat:
            await seat.press("ctrl+s")
            assert seat.main.board.order.column == "state"
            await seat.press("question_mark")
            assert isinstance(seat.app.screen, HelpScreen)
            listed = "\n".join(
                str(keys.content) for keys in seat.app.screen.query(".keys").results(Static)
            )
            for owner in (StudioqApp, MainScreen, JobTable):
                assert all(name in listed for name in ids_of(owner))
            assert "ctrl+s" in listed
            await seat.press("escape")
            assert seat.app.main is not None

    sit(run())


def test_every_binding_has_an_id_of_its_own() -> None:
    ids = [name for owner in (StudioqApp, MainScreen, JobTable, Detail) for name in ids_of(owner)]
    assert all(ids)
    assert len(ids) == len(set(ids))


def ids_of(owner: type[Any]) -> list[str]:
    return [binding.id or "" for binding in owner.BINDINGS if isinstance(binding, Binding)]


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
def test_the_parts_stand_where_there_is_room(
    studio: Studio, four: list[int], size: tuple[int, int]
) -> None:
    async def run() -> None:
        async with seated(studio, 4, size=size) as seat:
            queue, detail = (
                seat.main.query_one("#queue").region,
                seat.main.query_one("#detail").region,
            )
            assert (queue.y == detail.y) == (size[0] >= 110)
            await seat.press("z")
            assert not seat.main.query_one("#detail").display
            await seat.press("z")
            assert seat.main.query_one("#detail").display

    sit(run())


def test_the_daemon_goes_and_comes(studio: Studio, four: list[int]) -> None:
    opened: list[Client] = []

    def connect() -> Client:
        opened.append(studio.connect())
        return opened[-1]

    async def run() -> None:
        async with seated(studio, 4, connect=connect) as seat:
            socket = studio.stage.paths.socket
            away = socket.with_name("away")
            socket.rename(away)
            for client in opened:
                client.close()  # as the daemon's end closes every connection
            await seat.until(lambda: seat.main.query_one(Meters).trouble)
            assert len(seat.main.board) == 4
            away.rename(socket)
            await seat.until(lambda: seat.main.query_one(Meters).trouble is None)
            studio.add(name="later")
            await seat.until(lambda: len(seat.main.board) == 5)

    sit(run())


def test_a_refusal_is_shown_in_the_daemon_s_words(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        async with seated(studio, 4) as seat:
            await seat.press("j", "j")
            job = seat.table.job
            assert job is not None
            with studio.connect() as client:
                client.cancel(job["id"])
            seat.main.do(seat.main.offered()["hold"], job)
            await seat.until(lambda: seat.app._notifications)
            messages = [note.message for note in seat.app._notifications]
            assert any("only a waiting job can be held" in message for message in messages)

    sit(run())


def test_a_theme_is_kept(studio: Studio, tmp_path: Any) -> None:
    async def run() -> None:
        async with seated(studio, 0, folder=tmp_path) as seat:
            seat.app.theme = "textual-light"
            await seat.pilot.pause()

    sit(run())
    assert "textual-light" in (tmp_path / "tui.json").read_text()


def test_tabs_are_opened_by_key(studio: Studio, four: list[int]) -> None:
    studio.log(four[3], "one line\n")

    async def run() -> None:
        async with seated(studio, 4) as seat:
            detail = seat.main.query_one(Detail)
            for key, name in (("l", "log"), ("m", "metrics"), ("i", "summary")):
                await seat.press(key)
                await seat.until(partial(is_open, detail, name))
                await seat.until(lambda: detail.has_focus_within)
                await seat.press("escape")
                await seat.until(lambda: seat.table.has_focus)
            await seat.press("right_square_bracket")
            await seat.until(lambda: detail.current == "log")
            await seat.press("escape", "left_square_bracket")
            await seat.until(lambda: detail.current == "summary")
            job = detail.pane("summary").job  # type: ignore[union-attr]
            assert job is not None
            assert job["id"] == four[3]
            assert detail.pane("log").job is None  # type: ignore[union-attr]

    sit(run())


def is_open(detail: Detail, name: str) -> bool:
    return detail.current == name and detail.pane(name) is not None


def test_a_new_job_and_a_duplicate_are_queued(studio: Studio, four: list[int]) -> None:
    async def run() -> None:
        async with seated(studio, 4) as seat:
            await seat.press("d")
            await seat.until(lambda: seat.app.screen.query("#form-fields, FieldRow"))
            await seat.press("ctrl+s")
            await seat.until(lambda: len(seat.main.board) == 5)
            await seat.until(lambda: seat.app.main is not None)
            assert seat.main.board.shown[0] > four[3]
            await seat.press("ctrl+n")
            await seat.until(lambda: seat.app.main is None)
            await seat.press("escape")
            await seat.until(lambda: seat.app.main is not None)

    sit(run())
