"""Somebody fills a form: every key, and what happens to what was typed."""

from __future__ import annotations

from pathlib import Path

from textual.widgets import Button, OptionList, Select, TextArea

from daemon.errors import DaemonAwayError
from tests.unit.tui.conftest import Studio
from tests.unit.tui.forms.conftest import NOBODY_YET, run, seated
from tui.confirm import Confirm
from tui.forms.completer import Completer
from tui.forms.part import SectionTitle
from tui.forms.preview import Preview


def test_a_job_from_the_choice_of_its_kind_to_its_number(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio) as seat:
            kinds = seat.form.query_one("#kinds", OptionList)
            await seat.until(lambda: kinds.option_count == 5 and kinds.has_focus)
            await seat.press("ctrl+s", "ctrl+o", "ctrl+y")  # nothing to send, open or copy yet
            await seat.press("end", "enter")
            await seat.until(lambda: seat.focused == "spec-model")
            await seat.press("enter", "3", "tab")
            assert seat.focused == "spec-step_seconds"
            await seat.press("shift+tab")
            assert seat.focused == "spec-steps"
            await seat.press("ctrl+o")
            await seat.write("name", "mine", "request")
            await seat.until(lambda: seat.command == "studioq noop --steps 3 --name mine")
            await seat.press("ctrl+s")
            number = await seat.until(lambda: seat.app.answer not in (NOBODY_YET, None))
        with studio.connect() as client:
            job = client.job(int(str(seat.app.answer)))
        assert number
        assert (job["kind"], job["name"], job["spec"]["steps"]) == ("noop", "mine", 3)

    run(story)


def test_leaving_asks_where_something_would_be_lost(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="noop") as seat:
            await seat.go("steps")
            await seat.press("5", "escape")
            await seat.until(lambda: isinstance(seat.app.screen, Confirm))
            await seat.press("n")
            await seat.until(lambda: seat.app.screen is seat.form)
            assert seat.row("steps").entry.text == "5", "nothing was lost"
            await seat.press("backspace", "escape")
            await seat.until(lambda: seat.app.answer is None)
        async with seated(studio, kind="noop") as seat:
            await seat.write("steps", "5")
            await seat.pilot.click("#leave")
            await seat.until(lambda: isinstance(seat.app.screen, Confirm))
            await seat.press("y")
            await seat.until(lambda: seat.app.answer is None)

    run(story)


def test_another_kind_keeps_what_was_typed_for_the_first(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="convert") as seat:
            await seat.write("to", "small")
            choice = seat.form.query_one("#kind", Select)
            choice.value = "infer"
            await seat.until(lambda: seat.command == "studioq infer")
            await seat.until(lambda: seat.focused == "spec-model")
            choice.value = "convert"
            await seat.until(lambda: seat.command == "studioq convert --to small")
            assert not seat.form.query_one("#spec-prompt").region, "the other form is hidden"

    run(story)


def test_suggestions_under_a_path(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "minutes").mkdir()
    (tmp_path / "minutes" / "train.jsonl").touch()
    (tmp_path / "minutes" / "valid.jsonl").touch()

    async def story() -> None:
        async with seated(studio, kind="train") as seat:
            row = await seat.go("data")
            line = row.query_one(Completer)
            await seat.write("data", f"{tmp_path}/m")
            await seat.press("end", "down")
            await seat.until(lambda: line.query("OptionList:focus"))
            await seat.press("enter")
            await seat.until(lambda: line.query_one(OptionList).option_count == 2)
            assert line.typed == f"{tmp_path}/minutes/"
            await seat.press("v")  # goes on in the text, and narrows the list
            await seat.until(lambda: line.query_one(OptionList).option_count == 1)
            await seat.press("down", "backspace")
            await seat.until(lambda: line.query_one(OptionList).option_count == 2)
            await seat.press("down")
            await seat.until(lambda: line.query("OptionList:focus"))
            await seat.press("down", "enter")
            await seat.until(lambda: not line.is_open)
            assert line.typed == f"{tmp_path}/minutes/valid.jsonl"
            await seat.press(*"x", "down")
            await seat.until(lambda: "nothing fits" in _listed(line))
            await seat.press("escape")
            await seat.until(lambda: not line.is_open)
            assert seat.app.screen is seat.form, "escape closed the list, not the form"
            await seat.press("down")
            await seat.until(lambda: line.is_open)
            await seat.press("tab")
            await seat.until(lambda: not line.is_open)

    run(story)


def _listed(line: Completer) -> str:
    options = [option.prompt for lists in line.query(OptionList) for option in lists.options]
    return " ".join(map(str, options))


def test_the_grey_suggestion_is_taken_by_the_right_arrow(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="infer") as seat:
            line = seat.row("model").query_one(Completer)
            await seat.press("down")
            await seat.until(lambda: "smollm2" in _listed(line))
            assert "shapes" not in _listed(line), "an image model is no language model"
            await seat.press("escape", *"smo")
            await seat.until(lambda: line.query_one("Line")._suggestion)  # type: ignore[attr-defined]
            await seat.press("right")
            assert line.typed == "smollm2"

    run(story)


def test_the_command_is_copied(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="convert") as seat:
            await seat.press("y", "ctrl+y")
            await seat.until(lambda: seat.app.clipboard == "studioq convert y")
            preview = seat.form.query_one(Preview)
            for copy in ("y", "enter"):
                seat.app.copy_to_clipboard("")
                preview.focus()
                await seat.press(copy)
                await seat.until(lambda: seat.app.clipboard == "studioq convert y")
            seat.app.copy_to_clipboard("")
            await seat.pilot.click(Preview)
            await seat.until(lambda: seat.app.clipboard == "studioq convert y")
            seat.app.copy_to_clipboard("")
            seat.form.query_one("#send", Button).focus()
            await seat.press("y")
            await seat.until(lambda: seat.app.clipboard == "studioq convert y")

    run(story)


def test_groups_open_by_key_and_mouse(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="noop", size=(120, 36)) as seat:
            assert not seat.form.query("#request-name")
            title = seat.form.query(SectionTitle).last()
            await seat.pilot.click(title)
            await seat.until(lambda: seat.form.query("#request-name"))
            title.focus()
            await seat.press("enter")
            await seat.until(lambda: not seat.row("name", "request").display)
            await seat.press("space")
            await seat.until(lambda: seat.row("name", "request").display)
            await seat.go("hold", "request")
            await seat.press("space")
            await seat.until(lambda: seat.command == "studioq noop --hold")
            assert "(1 set)" in str(title.content)
            await seat.go("priority", "request")
            await seat.press("enter", "down", "enter")
            await seat.until(lambda: seat.command == "studioq noop --priority low --hold")
            await seat.pilot.click("#send")
            await seat.until(lambda: isinstance(seat.app.answer, int))

    run(story)


def test_long_texts_and_lists(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="diffuse") as seat:
            await seat.until(lambda: isinstance(seat.app.focused, TextArea))
            await seat.press(*"a fox", "enter", *"ha", "ctrl+z", "ctrl+y", "tab")
            await seat.until(lambda: "a fox\nha" in seat.command)
            assert seat.focused == "spec-model", "tab leaves a long text"
            row = await seat.go("lora")
            await seat.press(*"a.bin")
            await seat.until(lambda: len(row.query(Completer)) == 2)
            await seat.press("enter", *"b:0.5")
            await seat.until(lambda: "--lora a.bin --lora b:0.5" in seat.command)
            assert row.entry.text == "a.bin\nb:0.5"

    run(story)


def test_a_daemon_that_is_away_and_comes_back(studio: Studio) -> None:
    away = [True]

    def connect() -> object:
        if away[0]:
            raise DaemonAwayError("no daemon answers", remedy="studioq daemon start")
        return studio.connect()

    async def story() -> None:
        async with seated(studio, connect=connect) as seat:
            await seat.until(lambda: "no daemon answers\n→ studioq daemon start" in seat.notice)
            away[0] = False
            await seat.press("f5")
            await seat.until(lambda: seat.form.query_one("#kinds", OptionList).option_count)
            assert seat.notice == ""
            away[0] = True
            await seat.press("end", "enter")
            await seat.until(lambda: seat.focused)
            await seat.press("ctrl+s")
            await seat.until(lambda: "no daemon answers" in seat.notice)
            away[0] = False
            await seat.press("ctrl+enter")
            await seat.until(lambda: isinstance(seat.app.answer, int))

    run(story)


def test_every_size_shows_the_field_that_has_the_focus(studio: Studio) -> None:
    async def story() -> None:
        async with seated(studio, kind="noop") as seat:
            await seat.press("ctrl+o")
            for width, height in ((200, 50), (120, 36), (80, 24)):
                await seat.pilot.resize_terminal(width, height)
                await seat.until(lambda: seat.form.size.width == width)  # noqa: B023
                row = await seat.go("share", "request")
                fields = seat.form.query_one("#fields")
                await seat.until(lambda: fields.region.contains_region(row.region))  # noqa: B023
                assert seat.form.has_class("-wide") is (width >= 110)
                assert fields.region.bottom < height
                await seat.go("model")

    run(story)
