"""Lines depend on the bytes alone, and lose none of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.log.lines import LONGEST, Assembler, Line, first_start, slices

# Bytes that meet every branch: line ends, carriage returns, escapes, parts of characters.
_LONG = [b"x" * (LONGEST - 1), "ü".encode() * LONGEST]
_TEXTS = [b"a", b"word ", b"\t", b"\x1b[31m", "é".encode(), "日".encode(), b"\xff"]
_ATOMS = st.sampled_from([b"\n", b"\r", b"\r\n", *_TEXTS, *_LONG])


class Log(bytes):
    """Bytes that are shown in short."""

    __slots__ = ()

    def __repr__(self) -> str:
        short = bytes(self).replace(_LONG[0], b"<long x>").replace(_LONG[1], b"<long u>")
        return repr(short)


LOGS = st.lists(_ATOMS, max_size=30).map(lambda atoms: Log(b"".join(atoms)))


def assembled(pieces: list[bytes], offset: int = 0) -> tuple[list[Line], Line | None, Assembler]:
    assembler = Assembler(offset)
    lines = [line for piece in pieces for line in assembler.feed(piece)]
    return lines, assembler.open(), assembler


@settings(deadline=None)
@given(log=LOGS, cuts=st.lists(st.integers(0, 40_000), max_size=8))
def test_how_the_bytes_come_makes_no_difference(log: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    pieces = [log[a:b] for a, b in pairwise(places)]
    lines, last, assembler = assembled(pieces)
    whole_lines, whole_last, whole = assembled([log])
    assert (lines, last, assembler.stop) == (whole_lines, whole_last, whole.stop)
    assert assembler.end == len(log)


@settings(deadline=None)
@given(log=LOGS, at=st.integers(0, 40))
def test_one_can_begin_at_the_start_of_any_line(log: bytes, at: int) -> None:
    lines, last, _ = assembled([log])
    if lines:
        start = lines[at % len(lines)].start
        again, again_last, _ = assembled([log[start:]], start)
        assert (again, again_last) == (lines[at % len(lines) :], last)


@settings(deadline=None)
@given(log=LOGS)
def test_lines_hold_no_controls_and_are_bounded(log: bytes) -> None:
    lines, last, _ = assembled([log])
    starts = [line.start for line in lines]
    assert starts == sorted(set(starts))
    for line in [*lines, *([last] if last else [])]:
        assert line.text.isprintable()
        assert line.cells <= 8 * LONGEST


@pytest.mark.parametrize(
    ("log", "texts"),
    [
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\r\ntwo\r\n", ["one", "two"]),
        (b" 10%\r 50%\r100%\ndone\n", ["100%", "done"]),
        (b" 10%\r\n", [" 10%"]),
        (b"50%\r\r\n", ["50%"]),
        (b"\n\n", ["", ""]),
        (b"a\xffb\xe6\n", ["a\ufffdb\ufffd"]),
        (b"x" * (LONGEST + 3) + b"\n", ["x" * LONGEST, "xxx"]),
        (b"y" * (LONGEST - 1) + "é!".encode() + b"\n", ["y" * (LONGEST - 1), "é!"]),
    ],
)
def test_lines(log: bytes, texts: list[str]) -> None:
    lines, last, _ = assembled([log])
    assert [line.text for line in lines] == texts
    assert last is None


def test_a_progress_bar_costs_no_memory_however_long_it_runs() -> None:
    assembler = Assembler(0)
    for step in range(100_000):
        assembler.feed(b"\r%3d%% of it" % (step // 1000))
    shown = assembler.open()
    assert shown is not None
    assert shown.text == " 99% of it"
    assert len(assembler._open) < 100
    assert assembler.end == 100_000 * 11


def test_the_open_line_shows_its_last_state_also_after_a_return() -> None:
    for log, text in ((b"ab", "ab"), (b"ab\rc", "c"), (b"ab\rc\r", "c"), (b"\r", "")):
        _, last, _ = assembled([log])
        assert last is not None
        assert last.text == text


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"rest\nline\n", 5),
        (b"only one\n", 0),
        (b"10%\r20%\r", 4),
        ("é".encode()[1:] + b"x", 1),
        (b"", 0),
    ],
)
def test_where_the_first_whole_line_begins(data: bytes, start: int) -> None:
    assert first_start(data) == start


@settings(deadline=None)
@given(log=LOGS, size=st.integers(1, 5000))
def test_slices_are_all_of_it_and_end_with_lines(log: bytes, size: int) -> None:
    pieces = list(slices(log, size))
    assert b"".join(piece for _, piece in pieces) == log
    assert all(piece.endswith(b"\n") for _, piece in pieces[:-1])
    assert all(log[at : at + len(piece)] == piece for at, piece in pieces)
