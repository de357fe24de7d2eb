"""The Log tab in an app, over a daemon's real API: every key, and every state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from daemon.client import Client
from daemon.ledger.states import AttemptState
from tests.unit.tui.conftest import Studio
from tests.unit.tui.log.conftest import Screen, numbered, opened
from tui.log.pane import LogPane
from tui.log.view import LogView

Act = Callable[[Screen, int], Awaitable[None]]


def run(studio: Studio, act: Act, text: str = "", *, size: tuple[int, int] = (80, 24)) -> None:
    """Let ``act`` use the tab, with a running job that has written ``text``."""
    number = studio.add()
    studio.start(number)
    if text:
        studio.log(number, text)

    async def in_app() -> None:
        async with opened(studio, size=size) as screen:
            await act(screen, number)

    asyncio.run(in_app())


LAST = "line 500"
LOG = numbered(1, 500)

# More than one piece, so that parts of it have to be read again.
LARGE = "".join(f"line {n} {'of a large log' * 6}\n" for n in range(1, 4_001))


def test_a_log_is_followed_as_it_grows(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        assert screen.rows[-1] == LAST
        assert screen.says == "● following"
        studio.log(number, "more\n")
        await screen.until(lambda: screen.rows[-1] == "more")
        studio.log(number, " 10%\r 20%")
        await screen.until(lambda: screen.rows[-1] == " 20%")
        studio.log(number, "\r100%\n")
        await screen.until(lambda: screen.rows[-1] == "100%")
        assert screen.rows[-2] == "more"
        studio.end(number)
        screen.pane.update_job(screen.line(number))
        await screen.until(lambda: screen.says == "end of the log")

    run(studio, act, LOG)


def test_scrolled_up_the_view_stays_and_says_what_came(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        await screen.press("pageup")
        rows = screen.rows
        studio.log(number, "a\nb\nc\n")
        await screen.until(lambda: screen.says == "▼ 3 new lines")
        assert screen.rows == rows
        assert screen.place.endswith("kB")
        await screen.press("end")
        assert screen.rows[-1] == "c"
        assert screen.says == "● following"
        studio.log(number, "d\n")
        await screen.until(lambda: screen.rows[-1] == "d")

    run(studio, act, LOG)


def test_keys_that_move(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        high = screen.view.rows
        for keys, first in (
            (["home"], 1),
            (["down"], 2),
            (["j"], 3),
            (["k"], 2),
            (["up"], 1),
            (["pagedown"], high),
            (["space"], 2 * high - 1),
            (["pageup"], high),
            (["g"], 1),
        ):
            await screen.press(*keys)
            assert screen.rows[0] == f"line {first}", keys
        assert not screen.pane.model.following
        await screen.press("G")
        assert screen.rows[-1] == LAST
        assert screen.pane.model.following
        await screen.press("up")
        assert not screen.pane.model.following
        await screen.press("down")
        assert screen.pane.model.following

    run(studio, act, LOG)


def test_f_stays_at_the_place_and_goes_on(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        await screen.press("f")
        studio.log(number, "new\n")
        await screen.until(lambda: screen.says == "▼ 1 new line")
        assert screen.rows[-1] == LAST
        await screen.press("f")
        assert screen.rows[-1] == "new"

    run(studio, act, LOG)


def test_long_lines_are_cut_shifted_and_wrapped(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, "end")
        width = len(screen.rows[0])
        assert screen.rows[0].endswith("→")
        await screen.press("right")
        assert screen.rows[0].startswith("89")
        await screen.press("left")
        assert screen.rows[0].startswith("01")
        await screen.press("right", "w")
        assert screen.rows[0].startswith("01")
        assert "wrapped" in screen.place
        assert len(screen.rows[1]) == 200 - 2 * width or screen.rows[1].startswith("9")
        assert "".join(screen.rows).startswith("0123456789" * 20 + "end")
        await screen.press("w")
        assert screen.rows[:2] == [screen.rows[0], "end"]

    run(studio, act, "0123456789" * 20 + "\nend\n")


def test_y_copies_screen_match_and_selection(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, "line 3")
        await screen.press("y")
        assert screen.app.clipboard == "line 1\nline 2\nline 3"
        await screen.press("slash", "2", "enter", "y")
        assert screen.app.clipboard == "line 2"
        await screen.pilot.mouse_down(LogView, offset=(2, 0))
        await screen.pilot.hover(LogView, offset=(4, 1))
        await screen.pilot.mouse_up(LogView, offset=(4, 1))
        await screen.press("y")
        assert screen.app.clipboard.startswith("ne 1\nline")

    run(studio, act, numbered(1, 3))


def test_a_search_goes_up_and_down_and_is_counted(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        await screen.press("slash", *"line 4")
        assert "enter searches" in screen.says
        await screen.press("enter")
        await screen.until(lambda: screen.says.startswith("/line 4  111 of 111"))
        assert "line 499" in screen.text
        await screen.press("N")
        assert screen.says.startswith("/line 4  110 of 111")
        for _ in range(99):
            screen.pane.action_previous()
        await screen.pilot.pause()
        assert screen.says.startswith("/line 4  11 of 111")
        assert "line 49" in screen.rows
        await screen.press("n")
        assert screen.says.startswith("/line 4  12 of 111")
        assert "line 400" in screen.rows
        studio.log(number, "line 4 once more\n")
        await screen.until(lambda: "of 112" in screen.says)
        await screen.press("escape")
        assert screen.says == "▼ 1 new line"
        assert screen.app.left == 0
        await screen.press("escape")
        assert screen.app.left == 1

    run(studio, act, LOG)


def test_a_search_can_be_given_up_and_finds_nothing_politely(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        await screen.press("slash", "x", "escape")
        assert screen.says == "● following"
        assert screen.app.focused is screen.view
        await screen.press("n", "N")
        assert screen.rows[-1] == LAST
        await screen.press("slash", "x", "enter")
        await screen.until(lambda: screen.says == "/x  0 matches · ● following")
        await screen.until(lambda: len(screen.app._notifications) == 1)
        await screen.press("slash", "backspace", "enter")
        assert screen.says == "● following"

    run(studio, act, LOG)


def test_marks_are_seen_without_colours(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, "line 3")
        await screen.press("slash", *"line", "enter")
        styles = [
            next(s.style for s in screen.view.render_line(y) if s.text == "line") for y in (1, 2)
        ]
        assert styles[0] is not None
        assert styles[0].underline
        assert styles[1] is not None
        assert styles[1].reverse

    run(studio, act, numbered(1, 3))


def at(screen: Screen) -> int:
    """Return the number of the first line on the screen; the others follow on it."""
    numbers = [int(row.split()[1]) for row in screen.rows if row]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return numbers[0]


def test_a_large_log_opens_at_its_end_and_is_read_where_one_goes(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, "line 4000 ")
        assert screen.pane.model.window.start > 0
        await screen.press("g")
        await screen.until(lambda: screen.rows[0].startswith("line 1 "))
        assert not screen.pane.model.following
        await screen.press("G")
        await screen.until(lambda: screen.rows[-1].startswith("line 4000 "))
        assert screen.pane.model.following
        while screen.pane.model.window.start > 0:
            before = at(screen)
            screen.view.action_move(-300)
            await screen.pilot.pause()
            assert before - 300 <= at(screen) <= before
        await screen.press("home")
        assert at(screen) == 1
        assert len(screen.pane.model.window) == 4_000

    run(studio, act, LARGE)


def test_one_reads_down_from_the_beginning_to_the_end(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, "line 4000 ")
        await screen.press("g")
        await screen.until(lambda: screen.rows[0].startswith("line 1 "))
        while not screen.pane.model.following:
            before = at(screen)
            screen.view.action_move(300)
            await screen.pilot.pause()
            assert before <= at(screen) <= before + 300
        await screen.until(lambda: screen.rows[-1].startswith("line 4000 "))

    run(studio, act, LARGE)


def test_a_search_reaches_what_is_not_in_memory(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, "line 4000 ")
        await screen.press("slash", *"line 7 ", "enter")
        await screen.until(lambda: any(row.startswith("line 7 ") for row in screen.rows))
        await screen.until(lambda: screen.says == "/line 7   1 of 1")
        await screen.press("n")
        await screen.until(lambda: len(screen.app._notifications) == 1)

    run(studio, act, LARGE)


def test_the_file_s_search_can_be_stopped(studio: Studio) -> None:
    switch = Switch(studio)

    async def act(screen: Screen, number: int) -> None:
        screen.pane.connect = switch.connect
        studio.end(number)
        await screen.show(number, LAST)
        await screen.until(lambda: not screen.pane.is_following)
        switch.off()
        await screen.press("slash", "x", "enter")
        await screen.until(lambda: "the daemon is away" in screen.says)
        assert screen.pane.is_searching
        assert "/x  0+ matches, searched 0 %" in screen.says
        await screen.press("escape")
        assert not screen.pane.is_searching
        assert "/x  0 matches · end of the log" in screen.says
        await screen.press("escape")
        assert "/x" not in screen.says
        assert screen.app.left == 0

    run(studio, act, LOG)


def test_jobs_without_a_log_say_why(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, "The job has just begun.")
        held = studio.add(hold=True)
        await screen.show(held, "The job is held by its user.")
        assert screen.place == ""
        queued = studio.add()
        await screen.show(queued, "The job is queued, number 1")
        await screen.until(lambda: not screen.pane.is_following)
        studio.start(queued)
        studio.log(queued, "begun\n")
        screen.pane.update_job(screen.line(queued))
        await screen.until(lambda: screen.rows[0] == "begun")
        studio.end(queued, AttemptState.FAILED)
        screen.pane.update_job(screen.line(queued))
        await screen.until(lambda: screen.says == "end of the log")

    run(studio, act)


def test_an_ended_job_is_read_and_not_asked_for_again(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        studio.end(number)
        await screen.show(number, LAST)
        await screen.until(lambda: not screen.pane.is_following)
        assert screen.says == "end of the log"
        screen.pane.update_job(screen.line(number))
        assert not screen.pane.is_following

    run(studio, act, LOG)


def test_what_may_not_be_read_is_not_asked_for(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        screen.pane.show_job({**screen.line(number), "user": "ben", "readable": False})
        await screen.until(lambda: "is ben's: only ben and admins" in screen.text)
        assert not screen.pane.is_following

    run(studio, act, LOG)


def test_a_job_that_is_gone_says_so(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        screen.pane.show_job({**screen.line(number), "id": 99})
        await screen.until(lambda: "no job 99" in screen.text)
        assert not screen.pane.is_following

    run(studio, act, LOG)


def test_the_place_is_kept_while_the_tab_rests(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        await screen.press("pageup")
        rows = screen.rows
        screen.pane.show_job(None)
        assert not screen.pane.is_following
        studio.log(number, "a\nb\n")
        await screen.show(number, rows[0])
        await screen.until(lambda: screen.says == "▼ 2 new lines")
        assert screen.rows == rows

    run(studio, act, LOG)


def test_another_job_s_log_replaces_it(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        other = studio.add()
        studio.start(other)
        studio.log(other, "another\n")
        await screen.show(number, LAST)
        await screen.press("pageup")
        await screen.show(other, "another")
        assert screen.text.strip() == "another"
        assert screen.says == "● following"

    run(studio, act, LOG)


def test_a_log_that_is_begun_anew_is_shown_anew(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        studio.stage.paths.log(number).write_text("new\n")
        await screen.until(lambda: screen.text.strip() == "new")

    run(studio, act, LOG)


def test_the_size_of_the_screen_may_change(studio: Studio) -> None:
    async def act(screen: Screen, number: int) -> None:
        await screen.show(number, LAST)
        await screen.pilot.resize_terminal(60, 12)
        await screen.until(lambda: screen.rows[-1] == LAST)
        await screen.press(*["pageup"] * 5, "w")
        first = screen.rows[0]
        await screen.pilot.resize_terminal(100, 40)
        await screen.pilot.pause()
        assert screen.rows[0] == first

    run(studio, act, LOG)


class Switch:
    """Opens clients of a socket that can be taken away, as a daemon's end does."""

    def __init__(self, studio: Studio) -> None:
        self.socket = studio.stage.paths.socket
        self.link = Path(f"{self.socket}.test")
        self.on()

    def on(self) -> None:
        self.link.symlink_to(self.socket)

    def off(self) -> None:
        self.link.unlink()

    def connect(self) -> Client:
        return Client(self.link)


def test_a_daemon_that_is_away_is_waited_for(studio: Studio) -> None:
    switch = Switch(studio)
    switch.off()

    async def act(screen: Screen, number: int) -> None:
        screen.pane.connect = switch.connect
        screen.pane.show_job(screen.line(number))
        await screen.until(lambda: "no daemon answers at" in screen.text)
        assert "studioq daemon start" in screen.text
        switch.on()
        await screen.until(lambda: screen.rows[-1] == LAST)
        assert screen.says == "● following"
        screen.pane.show_job(None)
        switch.off()
        screen.pane.show_job(screen.line(number))
        await screen.until(lambda: screen.says.startswith("the daemon is away, trying again"))
        assert screen.rows[-1] == LAST
        studio.log(number, "meanwhile\n")
        switch.on()
        await screen.until(lambda: screen.rows[-1] == "meanwhile")
        assert screen.says == "● following"

    run(studio, act, LOG)


def test_every_binding_has_an_id_and_the_widgets_have_help() -> None:
    for owner in (LogPane, LogView):
        assert all(binding.id for binding in owner.BINDINGS)  # type: ignore[union-attr]
    assert "searches" in (LogPane.HELP or "")
