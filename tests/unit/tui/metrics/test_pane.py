"""The tab in an app, on a real daemon's API: every key, every state."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.client import Client
from daemon.ledger import attempts
from daemon.ledger.states import AttemptState
from tests.unit.tui.conftest import Studio
from tests.unit.tui.metrics.conftest import Seat, add_training, measure, seated
from tui.metrics import MetricsPane
from tui.metrics.picker import JobPicker
from tui.metrics.plot import Plot


@dataclass
class Line:
    """A way to the daemon that can be cut."""

    socket: Path
    cut: bool = False

    def connect(self) -> Client:
        return Client(self.socket.with_name("nobody") if self.cut else self.socket)


def test_plots_and_their_numbers(studio: Studio, trained: int) -> None:
    async def look() -> None:
        async with seated(studio) as seat:
            await seat.show(trained)
            await seat.until(lambda: len(seat.titles) == 4)
            assert "train 1.002" in seat.titles[0]
            assert "best 1.202 at 600" in seat.titles[0]
            assert seat.titles[1].startswith("Tokens/s")
            assert "(5 Iterations/s)" in seat.text("choices")
            drawing = seat.plot("loss").drawing
            assert drawing is not None
            assert drawing.x_limits == (10, 600)
            await seat.until(lambda: not seat.pane._has_to_ask())

    asyncio.run(look())


def test_the_keys_of_the_plots(studio: Studio, trained: int) -> None:
    async def press() -> None:
        async with seated(studio) as seat:
            await seat.show(trained)
            await seat.until(lambda: len(seat.titles) == 4)
            await seat.press("1", "5")
            assert next(title.split()[0] for title in seat.titles) == "Tokens/s"
            assert len(seat.titles) == 4
            assert "(1 Loss)" in seat.text("choices")
            await seat.press("1", "5", "6", "7", "8", "9")
            assert seat.titles[0].startswith("Loss")
            await seat.press("1", "2", "3", "4", "6")
            await seat.until(lambda: "1 to 9" in seat.text("values"))

    asyncio.run(press())


def test_log_smooth_tail_and_table(studio: Studio, trained: int) -> None:
    async def press() -> None:
        async with seated(studio) as seat:
            await seat.show(trained)
            await seat.until(lambda: len(seat.titles) == 4)
            await seat.press("L")
            await seat.until(lambda: _top(seat) < 1)
            await seat.press("L", "t")
            await seat.until(lambda: _left(seat) == 541)
            await seat.press("S")
            assert "smoothed (moving average, 0.9) · last 10%" in seat.text("status")
            assert "train 1.002" in seat.titles[0]
            await seat.press("S", "t", "v")
            await seat.until(lambda: "Validation loss" in seat.text("values"))
            assert seat.titles == []
            assert "1.202 at 600" in seat.text("values")
            await seat.press("v")
            await seat.until(lambda: len(seat.titles) == 4)
            assert seat.text("status") == ""

    asyncio.run(press())


def _top(seat: Seat) -> float:
    drawing = seat.plot("loss").drawing
    return 0.0 if drawing is None else drawing.y_limits[1]


def _left(seat: Seat) -> float:
    drawing = seat.plot("loss").drawing
    return 0.0 if drawing is None else drawing.x_limits[0]


def test_what_does_not_fit_scrolls(studio: Studio, trained: int) -> None:
    async def press() -> None:
        async with seated(studio, size=(40, 24)) as seat:
            await seat.show(trained)
            await seat.until(lambda: seat.board.max_scroll_y > 0)
            for key, wanted in (
                ("down", 1),
                ("up", 0),
                ("end", seat.board.max_scroll_y),
                ("home", 0),
            ):
                await seat.press(key)
                assert round(seat.board.scroll_y) == wanted
            await seat.press("pagedown")
            assert seat.board.scroll_y > 1
            await seat.press("pageup")
            assert seat.board.scroll_y == 0
            await seat.pilot._post_mouse_events(  # a wheel over a plot moves the tab
                [_wheel()], seat.plot("loss"), button=0
            )
            await seat.until(lambda: seat.board.scroll_y > 0)

    asyncio.run(press())


def _wheel() -> type:
    from textual.events import MouseScrollDown

    return MouseScrollDown


def test_a_small_place_gets_the_table_and_a_larger_one_the_plots(
    studio: Studio, trained: int
) -> None:
    async def resize() -> None:
        async with seated(studio, size=(78, 12)) as seat:
            await seat.show(trained)
            await seat.until(lambda: "Train loss" in seat.text("values"))
            assert seat.titles == []
            await seat.pilot.resize_terminal(120, 40)
            await seat.until(lambda: len(seat.titles) == 4)
            await seat.until(lambda: _left(seat) == 10)
            assert seat.text("values") == ""

    asyncio.run(resize())


def test_a_running_job_grows_and_goes_on_after_an_interruption(studio: Studio) -> None:
    number = add_training(studio)
    studio.start(number)
    measure(studio, number, 1, 30)

    async def follow() -> None:
        async with seated(studio) as seat:
            await seat.show(number)
            await seat.until(lambda: bool(seat.titles) and "best 1.25 at 300" in seat.titles[0])
            measure(studio, number, 31, 34)
            await seat.until(lambda: "train 1.033" in seat.titles[0])
            studio.end(number, AttemptState.INTERRUPTED)
            studio.start(number)
            with studio.stage.ledger.writing() as session:
                attempts.set_resumed_step(session, studio.claims[number].fence, 300)
            studio.metric(number, 310, train_loss=0.5)
            await seat.until(lambda: "train 0.5" in seat.titles[0])
            drawing = seat.plot("loss").drawing
            assert drawing is not None
            assert (drawing.x_limits, drawing.marks) == ((10, 310), [300])

    asyncio.run(follow())


def test_a_job_that_ended_is_read_to_its_end(studio: Studio) -> None:
    number = add_training(studio)
    studio.start(number)
    measure(studio, number, 1, 5)

    async def end() -> None:
        async with seated(studio) as seat:
            await seat.show(number)
            studio.metric(number, 60, train_loss=0.25)
            studio.end(number)
            seat.pane.update_job(seat.line(number))
            await seat.until(lambda: "0.25" in seat.titles[0])
            await seat.until(lambda: not seat.pane._has_to_ask())

    asyncio.run(end())


def test_names_that_nobody_knows_and_single_values(studio: Studio) -> None:
    number = studio.add("infer", spec={"model": "smol", "prompt": "hi"})
    studio.start(number)
    studio.metric(number, 1, generation_tps=81.5, exact_match=1.0)

    async def look() -> None:
        async with seated(studio) as seat:
            await seat.show(number)
            assert "Generation tokens/s" in seat.text("values")
            assert seat.titles == []
            studio.metric(number, 2, warp=2.0)
            studio.metric(number, 3, warp=3.0)
            await seat.until(lambda: any(title.startswith("Warp  3") for title in seat.titles))

    asyncio.run(look())


def test_empty_tabs_say_why(studio: Studio) -> None:
    queued = add_training(studio)
    running = add_training(studio)
    studio.start(running)
    failed = add_training(studio)
    studio.start(failed)
    studio.end(failed, AttemptState.FAILED, error={"code": "x", "message": "no rows"})

    async def look() -> None:
        async with seated(studio) as seat:
            assert "No job" in seat.text("empty")
            for number, words in (
                (queued, "queued"),
                (running, "first report"),
                (failed, "no rows"),
            ):
                seat.pane.show_job(seat.line(number))
                await seat.until(lambda words=words: words in seat.text("empty"))  # type: ignore[misc]
            studio.metric(running, 1, train_loss=1.0)
            await seat.show(running)

    asyncio.run(look())


def test_other_peoples_jobs_are_not_asked_for(studio: Studio) -> None:
    mine = add_training(studio)

    async def look() -> None:
        async with seated(studio) as seat:
            line = {**seat.line(mine), "readable": False, "user": "ben"}
            seat.pane.show_job(line)  # type: ignore[arg-type]
            await seat.until(lambda: "is ben's" in seat.text("empty"))
            assert not seat.pane._has_to_ask()
            await seat.press("c")
            assert not isinstance(seat.app.screen, JobPicker)

    asyncio.run(look())


def test_the_daemon_goes_away_and_comes_back(studio: Studio) -> None:
    number = add_training(studio)
    studio.start(number)
    measure(studio, number, 1, 30)
    line = Line(studio.stage.paths.socket)

    async def look() -> None:
        async with seated(studio, connect=line.connect) as seat:
            await seat.show(number)
            await seat.until(lambda: len(seat.titles) == 4)
            line.cut = True
            await seat.until(lambda: "away" in seat.text("status"))
            assert len(seat.titles) == 4
            measure(studio, number, 31, 34)
            line.cut = False
            await seat.until(lambda: "train 1.033" in seat.titles[0])
            assert seat.text("status") == ""

    asyncio.run(look())


def test_a_daemon_that_is_away_from_the_start(studio: Studio, trained: int) -> None:
    line = Line(studio.stage.paths.socket, cut=True)

    async def look() -> None:
        async with seated(studio, connect=line.connect) as seat:
            seat.pane.show_job(seat.line(trained))
            await seat.until(lambda: "away" in seat.text("empty"))
            line.cut = False
            await seat.until(lambda: bool(seat.titles))

    asyncio.run(look())


def test_a_late_answer_for_another_job_changes_nothing(studio: Studio, trained: int) -> None:
    second = add_training(studio)
    studio.start(second)
    studio.metric(second, 1, train_loss=9.0)
    studio.metric(second, 2, train_loss=8.0)

    async def look() -> None:
        async with seated(studio) as seat:
            for number in (trained, second, trained, second):
                seat.pane.show_job(seat.line(number))
            await seat.until(lambda: any("8" in title for title in seat.titles))
            assert all("1.002" not in title for title in seat.titles)
            seat.pane.show_job(None)
            studio.metric(second, 3, train_loss=7.0)
            assert not seat.pane._asking
            await seat.show(second)
            await seat.until(lambda: "7" in seat.titles[0])

    asyncio.run(look())


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light"])
def test_colours_follow_the_theme(studio: Studio, trained: int, theme: str) -> None:
    async def look() -> None:
        async with seated(studio) as seat:
            await seat.show(trained)
            await seat.until(lambda: len(seat.titles) == 4)
            before = seat.plot("loss")._style("curves--first")
            seat.app.theme = "nord"
            await seat.until(lambda: seat.plot("loss")._style("curves--first") != before)
            seat.app.theme = theme

    asyncio.run(look())


def test_without_colours(studio: Studio, trained: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def look() -> None:
        async with seated(studio) as seat:
            await seat.show(trained)
            await seat.until(lambda: len(seat.titles) == 4)
            assert "●" in seat.app.export_screenshot()

    asyncio.run(look())


def test_every_binding_has_an_id_and_help_is_there() -> None:
    for owner in (MetricsPane, JobPicker):
        assert owner.HELP
        ids = [binding.id for binding in owner.BINDINGS]  # type: ignore[union-attr]
        assert all(ids)
        assert len(set(ids)) == len(ids)


def test_plots_are_kept_while_values_change(studio: Studio) -> None:
    number = add_training(studio)
    studio.start(number)
    measure(studio, number, 1, 20)

    async def look() -> None:
        async with seated(studio) as seat:
            await seat.show(number)
            await seat.until(lambda: len(seat.titles) == 4)
            before = list(seat.pane.query(Plot))
            studio.metric(number, 300, train_loss=0.125)
            await seat.until(lambda: "0.125" in seat.titles[0])
            assert list(seat.pane.query(Plot)) == before

    asyncio.run(look())


@pytest.mark.parametrize("moments", [0, 6, 12, 18])
def test_the_app_may_end_while_plots_are_made(studio: Studio, trained: int, moments: int) -> None:
    async def leave() -> None:
        async with seated(studio) as seat:
            seat.pane.show_job(seat.line(trained))
            await seat.until(lambda: bool(seat.pane.query(Plot)))
            for _ in range(moments):
                await asyncio.sleep(0)

    asyncio.run(leave())
