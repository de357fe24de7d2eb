"""The tab in an app, over a real daemon's API: every key, and what comes and goes by itself."""

from __future__ import annotations

from functools import partial

import pytest
from textual.geometry import Region

from daemon.ledger.states import AttemptState
from tests.unit.api.conftest import NOBODY
from tests.unit.tui.conftest import Studio
from tests.unit.tui.outputs.conftest import (
    PICTURES,
    OutputsApp,
    ended,
    in_loop,
    png,
    publish,
    shown,
    until,
)
from tui.outputs import terminal
from tui.outputs.save_screen import SaveScreen
from tui.outputs.sheet_view import SheetView, Thumb
from tui.outputs.terminal import Drawing, Terminal
from tui.outputs.watching import WatchingPane


@in_loop
async def test_a_picture_is_shown_and_the_arrows_go_around(studio: Studio, pictured: int) -> None:
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        assert app.titles == list(PICTURES)
        assert app.caption.startswith("1/5 image-0000.png · 64 x 48")
        for key, place in (("right", 2), ("full_stop", 3), ("left", 2), ("comma", 1), ("left", 5)):
            await pilot.press(key)
            await until(pilot, partial(app.is_at, place))
        assert app.pane.files.highlighted == 4
        await pilot.press("home", "j", "down", "k")
        await until(pilot, lambda: app.caption.startswith("2/5"))


@in_loop
async def test_the_contact_sheet(studio: Studio, pictured: int) -> None:
    app = OutputsApp(studio)
    async with app.run_test(size=(60, 20)) as pilot:
        await shown(pilot, app, pictured)
        await pilot.press("c")
        sheet = app.pane.query_one(SheetView)
        await until(pilot, lambda: sheet.has_focus and len(sheet.query("HalfCells")) >= 4)
        await pilot.press("right", "down", "end")
        assert sheet.index == 4
        await pilot.press("left", "up", "home", "pagedown", "pageup")
        assert sheet.index == 0
        await pilot.press("right", "enter")
        await until(pilot, lambda: app.caption.startswith("2/5") and app.has_picture)
        assert not app.pane.has_sheet
        assert not sheet.query(Thumb)
        await until(pilot, lambda: app.pane.files.has_focus)
        for key in ("escape", "c"):
            await pilot.press("c")
            await until(pilot, lambda: app.pane.has_sheet and sheet.has_focus)
            await pilot.press(key)
            await until(pilot, lambda: not app.pane.has_sheet and app.pane.files.has_focus)


@in_loop
async def test_a_click_in_the_sheet_chooses(studio: Studio, pictured: int) -> None:
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        await pilot.press("c")
        sheet = app.pane.query_one(SheetView)
        await until(pilot, lambda: len(sheet.query("HalfCells")) == 5)
        await pilot.click(sheet.query(Thumb)[3])
        assert sheet.index == 3
        await pilot.click(sheet.query(Thumb)[2], times=2)
        await until(pilot, lambda: app.caption.startswith("3/5") and not app.pane.has_sheet)


@in_loop
async def test_enter_shows_it_large_and_escape_goes_back(studio: Studio, pictured: int) -> None:
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        before = app.pane.viewer.box.drawn
        assert before is not None
        await pilot.press("enter")
        await until(pilot, lambda: app.pane.viewer.has_focus and not app.pane.files.display)
        await until(pilot, lambda: app.pane.viewer.box.drawn is not before)
        await pilot.press("right")
        await until(pilot, lambda: app.caption.startswith("2/5"))
        await pilot.press("escape")
        await until(pilot, lambda: app.pane.files.has_focus and app.pane.files.display)


@in_loop
async def test_texts_are_shown_safely_and_scroll(studio: Studio) -> None:
    text = "\x1b]0;evil\x07" + "".join(f"line {number}\n" for number in range(300))
    number = ended(studio, {"output.txt": text.encode()}, kind="text", job="infer")
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.pane.files.focus()
        app.show(number)
        await until(pilot, lambda: "line 299" in app.text)
        assert app.text.startswith("\\x1b]0;evil\\x07line 0")
        assert "\x1b" not in app.export_screenshot()
        await pilot.press("enter")
        view = app.pane.viewer.text_view
        await until(pilot, lambda: view.has_focus)
        assert view.wrapped.width == view.room == app.pane.viewer.text_width
        await pilot.press("G")
        await until(pilot, lambda: view.scroll_y == view.max_scroll_y > 0)
        await pilot.press("k", "g")
        await until(pilot, lambda: view.scroll_y == 0)
        await pilot.press("j")
        await until(pilot, lambda: view.scroll_y == 1)
        await pilot.press("escape")
        await until(pilot, lambda: app.pane.files.has_focus)


def told(app: OutputsApp) -> str:
    return "\n".join(str(fact.render()) for fact in app.pane.viewer.facts.query("Static"))


@in_loop
async def test_other_files_say_what_they_are(studio: Studio) -> None:
    number = studio.add()
    studio.start(number)
    publish(studio, number, {"checkpoints/30/a.safetensors": b"x"}, kind="checkpoint", step=30)
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.show(number)
        await until(pilot, lambda: app.pane.viewer.shown == "facts")
        await until(pilot, lambda: f"--adapter job:{number}@30" in told(app))
        assert app.titles == ["@30 a.safetensors"]


@in_loop
async def test_a_damaged_picture_is_a_sentence(studio: Studio) -> None:
    number = ended(studio, {"a.png": png(200, 200)[:90], "b.png": png()}, kind="image")
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.pane.files.focus()
        app.show(number)
        await until(pilot, lambda: "cannot be shown as a picture" in app.message)
        await pilot.press("c")
        await until(pilot, lambda: len(app.pane.sheet.query("HalfCells")) == 1)
        labels = [str(label.render()) for label in app.pane.sheet.query(".label")]
        assert labels == ["cannot be shown", "b.png"]


@in_loop
async def test_keys_that_do_not_apply_are_not_offered(studio: Studio, pictured: int) -> None:
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        offered = {binding.binding.id for binding in app.screen.active_bindings.values()}
        assert {"outputs.save", "outputs.open", "outputs.sheet", "outputs.next"} <= offered
        assert not {"outputs.edit", "outputs.back"} & offered


def test_every_binding_can_be_remapped() -> None:
    from tui.outputs.file_list import FileList
    from tui.outputs.pane import OutputsPane
    from tui.outputs.text_view import TextView

    for widget in (OutputsPane, SheetView, TextView, FileList, SaveScreen):
        for base in widget.__mro__:
            if base.__module__.startswith("tui."):
                for binding in vars(base).get("BINDINGS", ()):
                    assert binding.id.startswith("outputs."), binding
        assert widget.HELP


@in_loop
async def test_pictures_appear_as_they_come_and_the_cursor_stays(studio: Studio) -> None:
    number = studio.add("diffuse", spec={"model": "shapes", "prompt": "a red circle"})
    folder = studio.start(number)
    studio.progress(number, 5, 25)
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.pane.files.focus()
        app.show(number)
        await until(pilot, lambda: "has drawn no preview yet" in app.message)
        assert app.caption == "preview · step 5 of 25"
        (folder / "preview.png").write_bytes(png(colour="green"))
        app.pane.look_again()
        await until(pilot, lambda: app.has_picture)
        publish(studio, number, {"image-0001.png": png()}, kind="image", step=1)
        studio.progress(number, 25, 50)
        app.update(number)
        await until(pilot, lambda: app.titles == ["preview", "image-0001.png"])
        assert app.caption == "preview · step 25 of 50"
        await pilot.press("down")
        await until(pilot, lambda: app.caption.startswith("image-0001.png · 64"))
        publish(studio, number, {"image-0000.png": png(colour="blue")}, kind="image", step=2)
        app.update(number)
        await until(pilot, lambda: len(app.titles) == 3)
        assert app.pane.files.highlighted == 2
        assert app.caption.startswith("2/2 image-0001.png")
        studio.end(number)
        app.update(number)
        await until(pilot, lambda: "preview" not in app.titles)
        assert app.pane.files.highlighted == 1


@in_loop
async def test_the_preview_is_looked_at_again_by_itself(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WatchingPane, "LOOK_EVERY", 0.02)
    number = studio.add("diffuse", spec={"model": "shapes", "prompt": "a red circle"})
    folder = studio.start(number)
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.show(number)
        await until(pilot, lambda: "no preview yet" in app.message)
        (folder / "preview.png").write_bytes(png())
        await until(pilot, lambda: app.has_picture)


@in_loop
async def test_text_streams_while_it_is_made(studio: Studio) -> None:
    number = studio.add("infer", spec={"model": "m", "prompt": "Say something"})
    studio.start(number)
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.show(number)
        await until(pilot, lambda: app.titles == ["text so far"])
        studio.text(number, "Once upon")
        await until(pilot, lambda: app.text == "Once upon")
        studio.text(number, " a time\x1b[2J\n")
        await until(pilot, lambda: app.text == "Once upon a time\\x1b[2J\n")
        studio.end(number, files={"output.txt": b"Once upon a time"}, kind="text")
        app.update(number)
        await until(pilot, lambda: app.text == "Once upon a time")
        assert app.titles == ["output.txt"]


@in_loop
async def test_a_failed_jobs_text_is_still_there(studio: Studio) -> None:
    number = studio.add("infer", spec={"model": "m", "prompt": "Say something"})
    studio.start(number)
    studio.text(number, "half of it")
    studio.end(number, AttemptState.FAILED, error={"code": "error", "message": "lost"})
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.show(number)
        await until(pilot, lambda: app.text == "half of it")
        assert app.caption == "text so far · failed"


@in_loop
async def test_news_of_another_job_is_dropped(studio: Studio, pictured: int) -> None:
    other = ended(studio, {"other.txt": b"other"}, kind="text")
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        for _ in range(5):
            app.show(pictured)
            app.show(other)
        await until(pilot, lambda: app.text == "other")
        assert app.titles == ["other.txt"]
        app.pane.show_job(None)
        app.show(other)
        await until(pilot, lambda: app.text == "other")


@in_loop
async def test_a_job_that_has_made_nothing(studio: Studio) -> None:
    number = studio.add()
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        app.show(number)
        await until(pilot, lambda: "the job is queued" in app.message)
        assert not app.pane.files.display


@in_loop
async def test_a_job_that_one_may_not_read(studio: Studio) -> None:
    number = studio.add(uid=NOBODY, user="ben")
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        line = app.line(number)
        app.pane.show_job({**line, "readable": False})
        await until(pilot, lambda: "belong to ben" in app.message)


@in_loop
async def test_a_daemon_that_is_away_takes_nothing_away(
    studio: Studio, pictured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WatchingPane, "LOOK_EVERY", 0.05)
    app = OutputsApp(studio)
    socket = studio.stage.paths.socket
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        line = app.line(pictured)
        socket.rename(socket.with_suffix(".away"))
        app.pane.update_job(line)
        await until(pilot, lambda: "no daemon answers" in app.told)
        assert app.titles == list(PICTURES)
        assert app.has_picture
        socket.with_suffix(".away").rename(socket)
        await until(pilot, lambda: app.told == "")


@in_loop
async def test_the_place_for_a_picture_changes(studio: Studio, pictured: int) -> None:
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)

        def columns() -> int:
            drawn = app.pane.viewer.box.drawn
            return drawn.picture.columns if drawn else 0

        await pilot.resize_terminal(60, 30)
        await until(pilot, lambda: not app.pane.has_class("-beside") and columns() <= 60)
        await pilot.resize_terminal(180, 50)
        await until(pilot, lambda: app.pane.has_class("-beside") and columns() > 80)


@pytest.mark.parametrize(
    ("drawing", "kind"), [(Drawing.KITTY, "TGPImage"), (Drawing.SIXEL, "_ImageSixelImpl")]
)
@in_loop
async def test_terminals_with_pixels_get_them(
    studio: Studio,
    pictured: int,
    drawing: Drawing,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(terminal, "_known", Terminal(drawing=drawing))
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        await until(pilot, lambda: app.pane.viewer.box.query(kind))
        await pilot.press("c")
        await until(pilot, lambda: len(app.pane.sheet.query(kind)) == 5)
        await pilot.press("escape")
    if drawing is Drawing.KITTY:
        assert "\x1b_G" in capfd.readouterr().out


@in_loop
async def test_without_colour_pictures_are_grey(
    studio: Studio, pictured: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = OutputsApp(studio)
    async with app.run_test(size=(100, 30)) as pilot:
        await shown(pilot, app, pictured)
        await until(pilot, lambda: app.pane.query("HalfCells"))
        assert app.no_color
        styles = [
            segment.style
            for strip in app.pane.query_one("HalfCells").render_lines(Region(0, 0, 20, 5))
            for segment in strip
        ]
        colours = [style.color.triplet for style in styles if style and style.color]
        assert colours
        assert all(colour and len(set(colour)) == 1 for colour in colours)
