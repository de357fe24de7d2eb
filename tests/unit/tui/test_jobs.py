"""The table's view model: filters, order, columns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli.table import cell_width
from tests.unit.tui.lines import NOW, line
from tui.jobs.board import Board, Order
from tui.jobs.columns import BY_NAME, COLUMNS, GAP, fit
from tui.jobs.query import FIELDS, parse_query

JOBS = (
    line(1, state="succeeded", user="ben", kind="infer", name="rewrite faq"),
    line(
        2,
        state="running",
        user="ana",
        started_at="2027-01-15T08:30:00.000Z",
        progress={"done": 5, "total": 10, "eta_seconds": 90.0},
    ),
    line(3, state="queued", user="ben", mine=False, position=2, name="Poster"),
    line(4, state="failed", error={"message": "out of memory", "code": "out_of_memory"}),
    line(5, state="held", reason="held by ana", priority="high"),
)


def shown(text: str, **options: Any) -> list[int]:
    board = Board()
    board.take(JOBS, NOW)
    board.show(NOW, query=parse_query(text, **options))
    return board.shown


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", [5, 4, 3, 2, 1]),
        ("user:ben", [3, 1]),
        ("USER:Ben state:q", [3]),
        ("state:running,failed", [4, 2]),
        ("state:running state:failed", [4, 2]),
        ("kind:inf", [1]),
        ("poster", [3]),
        ("memory", [4]),
        ("#4", [4]),
        ("priority:high", [5]),
        ("faq rewrite", [1]),
        ("nothing:here", []),
        ("user:", [5, 4, 3, 2, 1]),
    ],
)
def test_the_filter_line_says_which_jobs_are_shown(text: str, numbers: list[int]) -> None:
    assert shown(text) == numbers


def test_mine_shows_one_s_own(text: str = "") -> None:
    assert shown(text, mine=True) == [5, 4, 2, 1]


@given(st.text())
def test_whatever_is_typed_is_a_filter(text: str) -> None:
    shown(text)


@given(st.sampled_from(FIELDS), st.text())
def test_half_a_field_is_no_error(field: str, text: str) -> None:
    shown(f"{field}:{text}")


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        (Order(), [5, 4, 3, 2, 1]),
        (Order(column="number", descending=False), [1, 2, 3, 4, 5]),
        (Order(column="state", descending=False), [2, 3, 5, 4, 1]),
        (Order(column="user", descending=False), [5, 4, 2, 3, 1]),
        (Order(column="done", descending=True), [2, 5, 4, 3, 1]),
    ],
)
def test_jobs_are_sorted_by_any_column(order: Order, numbers: list[int]) -> None:
    board = Board()
    board.take(JOBS, NOW)
    board.show(NOW, order=order)
    assert board.shown == numbers


@pytest.mark.parametrize("name", BY_NAME)
def test_every_column_sorts_and_says_something(name: str) -> None:
    board = Board()
    board.take(JOBS, NOW)
    board.show(NOW, order=Order(column=name))
    assert sorted(board.shown) == [1, 2, 3, 4, 5]
    assert any(BY_NAME[name].text(job, NOW) for job in JOBS)


def test_a_change_is_put_into_its_place() -> None:
    board = Board()
    board.take(JOBS, NOW)
    board.show(NOW, query=parse_query("state:running"))
    assert board.take([line(3, state="running", user="ben")], NOW)
    assert board.shown == [3, 2]
    assert board.place_of(2) == 1
    assert not board.take([line(3, state="running", user="ben")], NOW)
    assert not board.take(
        [line(3, state="running", progress={"done": 1, "total": 2, "eta_seconds": None})], NOW
    )
    assert board.counts()["running"] == 2
    board.clear()
    assert board.shown == []


@given(st.integers(min_value=1, max_value=300), st.integers(min_value=1, max_value=9))
def test_columns_fit_or_only_those_that_stay_are_left(width: int, digits: int) -> None:
    fitted = fit(width, digits)
    taken = sum(part.width for part in fitted) + GAP * (len(fitted) - 1)
    assert taken == width or all(part.column.rank == 0 for part in fitted) or taken <= width
    assert [part.column.name for part in fitted][:2] == ["number", "state"]
    assert len(fit(200)) == len(COLUMNS)


def test_names_cannot_move_the_cursor() -> None:
    job = line(name="a\x1b[2Jb\nc\td 日本")
    text = BY_NAME["name"].text(job, NOW)
    assert text.isprintable()
    assert cell_width(text) > 0


def test_the_note_says_the_place_in_line() -> None:
    note = BY_NAME["note"].text
    assert note(JOBS[2], NOW) == "2. in line"
    assert note(JOBS[1], NOW) == "90s left"
    assert note(JOBS[3], NOW) == "out of memory"
    assert note(line(priority="high", position=1), NOW) == "▲next"
