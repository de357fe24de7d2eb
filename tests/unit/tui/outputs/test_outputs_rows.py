"""The list's rows, the line above the output, what stands where there is none, the places."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from tests.unit.tui.outputs.conftest import row
from tui.outputs.captions import caption, sheet_caption
from tui.outputs.empty import not_readable, why_empty
from tui.outputs.facts_view import facts
from tui.outputs.files import (
    PREVIEW_KEY,
    STREAM_KEY,
    Look,
    after_change,
    fetch_command,
    first_choice,
    neighbour,
    row_line,
    rows_of,
    use_of,
)
from tui.outputs.grid import arrange
from tui.outputs.latest import Latest
from tui.outputs.layout import arrangement
from tui.outputs.safe import one_line, safe_text, shortened


def job(**changes: Any) -> Any:
    """Return a job's line."""
    return {
        "id": 7,
        "kind": "diffuse",
        "name": None,
        "user": "ana",
        "state": "running",
        "reason": None,
        "position": None,
        "model": "shapes",
        "progress": {"done": 12, "total": 25, "eta_seconds": None},
        "readable": True,
        "error": None,
    } | changes


def artifacts(*names: str, kind: str = "image", step: int | None = None) -> list[Any]:
    return [row(name, kind=kind, step=step).artifact for name in names]


def test_results_come_in_the_order_of_people_and_checkpoints_last() -> None:
    made = [
        *artifacts("checkpoints/0000100/a.safetensors", kind="checkpoint", step=100),
        *artifacts("checkpoints/0000200/a.safetensors", kind="checkpoint", step=200),
        *artifacts("image-10.png", "image-9.png", "loss.png"),
    ]
    titles = [found.title for found in rows_of(job(state="succeeded"), made)]
    assert titles == [
        "image-9.png",
        "image-10.png",
        "loss.png",
        "@200 a.safetensors",
        "@100 a.safetensors",
    ]


def test_what_is_being_made_stands_on_top() -> None:
    assert [found.key for found in rows_of(job(), artifacts("a.png"))] == [PREVIEW_KEY, "a.png"]
    assert [found.key for found in rows_of(job(kind="infer"), [])] == [STREAM_KEY]
    assert [found.key for found in rows_of(job(kind="infer", state="failed"), [])] == [STREAM_KEY]
    assert rows_of(job(kind="infer", state="queued"), []) == []
    text = artifacts("output.txt", kind="text")
    assert [found.key for found in rows_of(job(kind="infer"), text)] == ["output.txt"]


@pytest.mark.parametrize(
    ("name", "kind", "look"),
    [
        ("a.PNG", "image", Look.PICTURE),
        ("a.jpeg", "plot", Look.PICTURE),
        ("output.txt", "text", Look.TEXT),
        ("samples", "samples", Look.TEXT),
        ("adapter_config.json", "adapter", Look.TEXT),
        ("adapters.safetensors", "adapter", Look.FACTS),
        ("movie.gif", "image", Look.FACTS),
    ],
)
def test_how_a_file_is_shown(name: str, kind: str, look: Look) -> None:
    assert row(name, kind=kind).look is look


def test_the_first_choice_and_the_choice_after_a_change() -> None:
    rows = rows_of(job(), artifacts("a.png"))
    assert first_choice(rows) is rows[0]
    assert after_change(rows, "a.png") is rows[1]
    assert after_change(rows[:1], "a.png") is rows[0]
    assert first_choice([]) is None
    only = [row("checkpoints/1/a.safetensors", kind="checkpoint", step=1)]
    assert first_choice(only) is only[0]


def test_next_and_previous_picture_go_around() -> None:
    rows = [row("a.png"), row("b.txt"), row("c.png")]
    assert neighbour(rows, "a.png", 1) is rows[2]
    assert neighbour(rows, "c.png", 1) is rows[0]
    assert neighbour(rows, "a.png", -1) is rows[2]
    assert neighbour(rows, "b.txt", 1) is rows[0]
    assert neighbour(rows[1:2], "b.txt", 1) is None


@pytest.mark.parametrize("width", [1, 5, 20, 28, 44])
def test_a_row_fills_its_line(width: int) -> None:
    line = row_line(row("checkpoints/0000300/adapters.safetensors", size=31_000_000), width)
    assert cell_len(line) == max(width, 3)
    if width >= 28:
        assert line.endswith("31 MB")


def test_the_title_of_a_file_is_safe() -> None:
    (found,) = rows_of(job(state="succeeded"), artifacts("a\x1b[2Jb\nc.png"))
    assert found.title == "a\\x1b[2Jb c.png"
    assert found.key == "a\x1b[2Jb\nc.png"


def test_commands_that_use_a_file() -> None:
    made = artifacts("adapters.safetensors", kind="adapter")[0]
    assert "--adapter job:7 " in use_of(job(), made)
    checkpoint = artifacts("checkpoints/1/a.safetensors", kind="checkpoint", step=300)[0]
    assert "--model shapes --adapter job:7@300 " in use_of(job(), checkpoint)
    assert "--resume job:7" in use_of(job(), artifacts("s", kind="state", step=1)[0])
    assert fetch_command(7, "a b.png") == "studioq fetch 7 'a b.png'"


def test_facts_name_the_hash_and_the_step() -> None:
    checkpoint = artifacts("checkpoints/1/a.safetensors", kind="checkpoint", step=300)[0]
    told = dict(facts(job(), checkpoint))
    assert told["sha256"] == "ab" * 32
    assert told["step"] == "300"
    assert "job:7@300" in told["use it"]
    assert "use it" not in dict(facts(job(), artifacts("x.bin", kind="other")[0]))


def test_the_line_above() -> None:
    rows = [row("a.png"), row("b.png", size=2_000)]
    assert caption(job(), rows[1], rows, pixels=(64, 48)) == "2/2 b.png · 64 x 48 · 2 kB"
    preview = rows_of(job(), [])
    assert caption(job(), preview[0], preview) == "preview · step 12 of 25"
    assert caption(job(progress=None), preview[0], preview) == "preview · being drawn"
    stream = rows_of(job(kind="infer"), [])
    assert caption(job(kind="infer"), stream[0], stream) == "text so far · as it is made"
    assert sheet_caption(rows, 1, 0, 1) == "2 pictures · b.png"
    assert sheet_caption(rows, 0, 0, 2) == "2 pictures · page 1 of 2 · a.png"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "queued", "position": 3, "reason": "the GPU is busy"}, "number 3 in the queue"),
        ({"state": "held"}, "the job is held"),
        ({"kind": "train"}, "12 of 25: the first file of a training is its first checkpoint"),
        ({"state": "failed", "error": {"message": "out of memory"}}, "failed, out of memory"),
        ({"state": "cancelled", "reason": "by ana"}, "cancelled, by ana"),
        ({"state": "succeeded"}, "made no files"),
    ],
)
def test_an_empty_tab_says_why(changes: dict[str, Any], words: str) -> None:
    assert words in why_empty(job(**changes))


def test_a_private_job_says_whose_it_is() -> None:
    assert "belong to ana" in not_readable(job())


def test_only_the_last_errand_is_next() -> None:
    latest: Latest[str] = Latest()
    assert latest.ask("a")
    assert not latest.ask("b")
    assert not latest.ask("c")
    assert latest.newest == "c"
    assert latest.finish() == "c"
    assert not latest.ask("d")
    latest.forget()
    assert latest.newest == "c"
    assert latest.finish() is None
    assert latest.ask("e")


@pytest.mark.parametrize("count", [1, 2, 9, 40, 500])
@pytest.mark.parametrize(("width", "height"), [(80, 22), (198, 46), (20, 6), (5, 2)])
def test_a_sheet_fits_its_place(count: int, width: int, height: int) -> None:
    grid = arrange(count, width, height)
    assert grid.across * grid.width <= width
    assert grid.down * grid.height <= height
    assert grid.pages * grid.per_page >= count
    assert [index for page in range(grid.pages) for index in grid.span(page)] == list(range(count))


def test_a_sheet_has_pages_only_where_pictures_would_be_too_small() -> None:
    assert arrange(9, 198, 46).pages == 1
    assert arrange(500, 80, 22).pages > 1


def test_the_sheets_cursor_stays_inside() -> None:
    grid = arrange(9, 80, 22)
    assert grid.moved(0, columns=-1) == 0
    assert grid.moved(0, columns=1) == 1
    assert grid.moved(0, rows=1) == grid.across
    assert grid.moved(8, rows=1) == 8
    assert grid.moved(2, pages=1) == 8


def test_where_the_list_goes() -> None:
    assert arrangement(120, 34, 9).beside
    assert arrangement(78, 10, 9).beside
    narrow = arrangement(50, 30, 4)
    assert (narrow.beside, narrow.size) == (False, 4)
    assert arrangement(50, 12, 40).size == 4


def test_control_characters_are_shown_and_scripts_are_kept() -> None:
    assert safe_text("a\x1b[31mred\x07\r\n\tb\rc") == "a\\x1b[31mred\\x07\n    b\\rc"
    assert safe_text("right\u202eleft\x9b") == "right\\u202eleft\\x9b"
    kept = "naïve\u00a0漢字\u3000👩\u200d👩 हिन्दी"
    assert safe_text(kept) == kept
    assert one_line("a\nb\x00") == "a b\\x00"


def test_long_names_lose_their_middle() -> None:
    assert shortened("short.png", 20) == "short.png"
    assert shortened("a-very-long-name-0001.png", 16) == "a-very-…0001.png"
    assert cell_len(shortened("漢字かな混じりの名前.png", 11)) <= 11
    assert shortened("abc", 0) == ""
