"""Pieces of a log fit together, wherever they were read."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.client.follow import Part
from daemon.errors import DaemonAwayError, NotFoundError, StudioqError
from tests.unit.tui.log.conftest import numbered
from tests.unit.tui.log.memory import MemoryLog
from tests.unit.tui.log.test_lines import LOGS, assembled
from tui.log import source
from tui.log.search import Needle
from tui.log.source import Follower, Patient, StoppedError, read_after, read_before, scan_back


def test_a_small_log_comes_whole_and_then_what_is_added() -> None:
    log = MemoryLog(b"one\ntwo\nthr")
    follower = Follower(log.read)
    first = follower.next(0.0)
    assert first.fresh
    assert [line.text for line in first.lines] == ["one", "two"]
    assert first.open is not None
    assert first.open.text == "thr"
    log.content += b"ee\nfour\n"
    second = follower.next(0.0)
    assert not second.fresh
    assert (second.start, second.stop, second.open) == (8, 19, None)
    assert [line.text for line in second.lines] == ["three", "four"]
    assert follower.next(0.0).lines == []


def test_of_a_large_log_only_the_end_is_read() -> None:
    log = MemoryLog(numbered(1, 1_000_000).encode())
    piece = Follower(log.read).next(0.0)
    assert log.asked == [(-source.TAIL, source.TAIL)]
    assert piece.lines[-1].text == "line 1000000"
    assert piece.stop == piece.size == len(log.content)
    assert log.content[: piece.start].endswith(b"\n")


def test_a_log_that_was_begun_anew_comes_from_its_end() -> None:
    log = MemoryLog(b"a long first attempt\n")
    follower = Follower(log.read)
    follower.next(0.0)
    log.content = b"new\n"
    piece = follower.next(0.0)
    assert piece.fresh
    assert [line.text for line in piece.lines] == ["new"]


def test_a_follower_goes_on_where_it_is_told() -> None:
    log = MemoryLog(b"one\ntwo\n")
    piece = Follower(log.read, 4).next(0.0)
    assert (piece.fresh, piece.start, [line.text for line in piece.lines]) == (False, 4, ["two"])


def test_who_is_far_behind_at_the_end_goes_there_and_others_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source, "FAR", 1000)
    monkeypatch.setattr(source, "PIECE", 100)
    log = MemoryLog(b"")
    follower, patient = Follower(log.read), Follower(log.read)
    follower.next(0.0), patient.next(0.0)
    log.content = numbered(1, 5000).encode()
    assert follower.next(0.0, at_end=True).fresh
    assert not patient.next(0.0, at_end=False).fresh


@settings(deadline=None)
@given(log=LOGS, most=st.integers(20_000, 60_000), at=st.integers(0, 40))
def test_what_lies_before_fits(log: bytes, most: int, at: int) -> None:
    lines, _, assembler = assembled([log])
    starts = [line.start for line in lines] + [assembler.stop]
    stop = starts[at % len(starts)]
    piece = read_before(MemoryLog(log).read, stop, most)
    assert piece is not None
    assert piece.stop == stop
    assert stop == 0 or piece.start < stop
    if piece.start in starts:
        assert piece.lines == [line for line in lines if piece.start <= line.start < stop]


@settings(deadline=None)
@given(log=LOGS, most=st.integers(500, 9000), at=st.integers(0, 40))
def test_what_lies_after_fits(log: bytes, most: int, at: int) -> None:
    lines, last, assembler = assembled([log])
    starts = [line.start for line in lines] + [assembler.stop]
    start = starts[at % len(starts)]
    piece = read_after(MemoryLog(log).read, start, most)
    assert piece is not None
    assert piece.lines == [line for line in lines if start <= line.start < piece.stop]
    if start == assembler.stop:
        assert (piece.lines, piece.open) == ([], last)
    else:
        assert piece.lines


def test_parts_of_a_log_that_was_begun_anew_are_refused() -> None:
    log = MemoryLog(b"new\n")
    assert read_before(log.read, 100) is None
    assert read_after(log.read, 100) is None


def test_going_back_ends_also_in_a_line_without_an_end() -> None:
    log = MemoryLog(b"x" * 1_000_000)
    stop, steps = 1_000_000, 0
    while stop > 0:
        piece = read_before(log.read, stop)
        assert piece is not None
        assert piece.start < stop
        stop, steps = piece.start, steps + 1
    assert steps == 4


def test_a_progress_bar_of_many_pieces_is_read_over() -> None:
    log = MemoryLog(b"10%\r" * 100_000 + b"\nafter\n")
    piece = read_after(log.read, 0, 1000)
    assert piece is not None
    assert piece.lines[0].text == "10%"


def test_a_search_goes_back_to_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SCAN", 3000)
    log = MemoryLog(numbered(1, 2000).encode())
    lines, _, _ = assembled([log.content])
    found: list[int] = []
    lows = []
    for low, starts in scan_back(log.read, Needle("7"), len(log.content)):
        found[:0] = starts
        lows.append(low)
    assert found == [line.start for line in lines if "7" in line.text]
    assert lows == sorted(lows, reverse=True)
    assert lows[-1] == 0


class Away:
    """Reads that fail first, as ``errors`` say."""

    def __init__(self, *errors: StudioqError) -> None:
        self.errors: Iterator[StudioqError] = iter(errors)
        self.said: list[StudioqError | None] = []

    def read(self, offset: int, wait: float, most: int) -> Part:
        for error in self.errors:
            raise error
        return Part(data=b"", offset=offset, state="running")


def test_a_daemon_that_comes_back_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PAUSE", 0.001)
    away = Away(DaemonAwayError("away"), DaemonAwayError("away"))
    read = Patient(away.read, Event(), away.said.append)
    assert read(7, 0.0, 1).offset == 7
    assert [str(error) if error else None for error in away.said] == ["away", None]
    read(8, 0.0, 1)
    assert len(away.said) == 2


def test_what_is_not_there_is_not_asked_for_again() -> None:
    away = Away(NotFoundError("no job 7"))
    with pytest.raises(NotFoundError):
        Patient(away.read, Event(), away.said.append)(0, 0.0, 1)


def test_nobody_is_waited_for_after_the_stop() -> None:
    stop = Event()
    away = Away(*[DaemonAwayError("away")] * 9)
    read = Patient(away.read, stop, lambda _: stop.set())
    with pytest.raises(StoppedError):
        read(0, 0.0, 1)
