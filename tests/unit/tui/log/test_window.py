"""The window holds consecutive lines, never too many, and its rows keep their numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.log.lines import Line
from tui.log.window import Window


def lines_of(texts: list[str], start: int = 0) -> list[Line]:
    made = []
    for text in texts:
        made.append(Line(start, text, cell_len(text)))
        start += len(text.encode()) + 1
    return made


def stop_of(lines: list[Line]) -> int:
    return lines[-1].start + len(lines[-1].text.encode()) + 1


TEXTS = st.lists(st.text("ab日 ", max_size=30), min_size=1, max_size=12)
ALL = lines_of([f"line {number}" for number in range(100)])


def check(window: Window) -> None:
    """Every row belongs to one line, in order; the numbers of what is held are right."""
    at = [window.at(row) for row in range(window.top, window.bottom)]
    expected = [
        (index, part)
        for index in range(len(window))
        for part in range(len(window.breaks(window[index])))
    ]
    assert at == expected
    assert window.at(window.top - 1) is None
    assert window.at(window.bottom) is None
    assert all(window.row_of(i) == window.top + at.index((i, 0)) for i in range(len(window)))
    assert window._characters == sum(len(line.text) for line in window.lines)


@settings(deadline=None)
@given(
    moves=st.lists(st.tuples(st.booleans(), st.integers(1, 15)), max_size=12),
    width=st.sampled_from([None, 3, 5]),
)
def test_whatever_is_added_the_lines_are_consecutive_and_bounded(
    moves: list[tuple[bool, int]], width: int | None
) -> None:
    window = Window(lines=20, characters=130)
    window.set_width(width)
    low = high = 50
    window.clear(ALL[50].start)
    for below, count in moves:
        if below:
            new = ALL[high : high + count]
            if new:
                window.append(new, stop_of(new), None)
        else:
            window.prepend(ALL[max(0, low - count) : low])
        if window.lines:
            low = ALL.index(window.lines[0])
            high = ALL.index(window.lines[-1]) + 1
            assert window.lines == ALL[low:high]
            assert window.stop == stop_of(window.lines)
        assert len(window.lines) <= 20
        assert window._characters <= 130
        check(window)


@settings(deadline=None)
@given(texts=TEXTS, more=TEXTS, width=st.integers(3, 12))
def test_rows_keep_their_numbers(texts: list[str], more: list[str], width: int) -> None:
    above = lines_of(more)
    held = lines_of(texts, stop_of(above))
    window = Window()
    window.set_width(width)
    window.clear(held[0].start)
    window.append(held, stop_of(held), None)
    rows = [window.row_of(index) for index in range(len(held))]
    window.prepend(above)
    assert [window.row_of(len(above) + index) for index in range(len(held))] == rows
    check(window)


@settings(deadline=None)
@given(text=st.text("ab日本 ", max_size=60), width=st.integers(2, 10))
def test_rows_are_no_wider_than_the_screen(text: str, width: int) -> None:
    window = Window()
    window.set_width(width)
    line = Line(0, text, cell_len(text))
    breaks = [*window.breaks(line), line.cells]
    assert breaks[0] == 0
    assert all(b - a <= width for a, b in pairwise(breaks))
    assert all(b - a >= width - 1 for a, b in pairwise(breaks[:-1]))


def test_a_byte_is_found_in_its_line() -> None:
    window = Window()
    window.clear(ALL[10].start)
    window.append(ALL[10:20], ALL[20].start, ALL[20])
    assert window.find(ALL[10].start) == 0
    assert window.find(ALL[15].start + 3) == 5
    assert window.find(ALL[20].start) == 10
    assert window.find(ALL[9].start) is None
    window.open = None
    assert window.find(ALL[20].start) is None
    assert Window().find(0) is None


def test_the_open_line_is_the_last_one() -> None:
    window = Window()
    window.append(ALL[:2], ALL[2].start, ALL[2])
    assert [line.text for line in window] == ["line 0", "line 1", "line 2"]
    assert (window.top, window.bottom, len(window)) == (0, 3, 3)
    window.append([ALL[2]], ALL[3].start, None)
    assert [line.text for line in window] == ["line 0", "line 1", "line 2"]


def test_a_line_that_is_too_long_alone_is_held_all_the_same() -> None:
    window = Window(lines=5, characters=10)
    long = lines_of(["x" * 50])
    window.append(long, 51, None)
    assert window.lines == long
    assert not window.has_room(ALL[:1])


def test_another_width_keeps_the_first_row() -> None:
    window = Window()
    window.append(lines_of(["x" * 10, "y" * 10]), 22, None)
    window.set_width(4)
    assert (window.top, window.bottom, window.row_of(1)) == (0, 6, 3)
    window.set_width(None)
    assert (window.top, window.bottom, window.row_of(1)) == (0, 2, 1)
