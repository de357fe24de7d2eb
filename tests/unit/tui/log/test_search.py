"""What matches, and where."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.tui.log.test_lines import LOGS, assembled
from tui.log.search import Matches, Needle, fold, matching_starts


@pytest.mark.parametrize(
    ("needle", "text", "spans"),
    [
        ("loss", "Train Loss, val loss", [(6, 10), (16, 20)]),
        ("Loss", "Train Loss, val loss", [(6, 10)]),
        ("aa", "aaaa", [(0, 2), (2, 4)]),
        ("[", "a[b", [(1, 2)]),
        ("x", "abc", []),
        ("i", "İi", [(1, 2)]),
    ],
)
def test_spans(needle: str, text: str, spans: list[tuple[int, int]]) -> None:
    assert list(Needle(needle).spans(text)) == spans
    assert Needle(needle).is_in(text) == bool(spans)


@settings(deadline=None)
@given(text=st.text())
def test_folding_keeps_places(text: str) -> None:
    assert len(fold(text)) == len(text)


@settings(deadline=None)
@given(log=LOGS, needle=st.sampled_from(["a", "word a", "x", "é", "日", " ", "\ufffd", "ü", "A"]))
def test_a_search_finds_what_is_shown(log: bytes, needle: str) -> None:
    lines, last, _ = assembled([log])
    shown = [*lines, *([last] if last else [])]
    expected = [line.start for line in shown if needle.lower() in line.text.lower()]
    if needle == "A":
        expected = []
    assert matching_starts(Needle(needle), log, 0) == expected


def test_escapes_and_overwritten_progress_do_not_hide_or_match() -> None:
    log = b"lo\x1b[1mss\x1b[0m 1\n10% loss\rdone\nlo\xe2\x80\x8bss\n[31m\n"
    assert matching_starts(Needle("loss"), log, 100) == [100, 129]
    assert matching_starts(Needle("1m"), log, 0) == [37]


def test_matches_are_in_order_and_known_by_number() -> None:
    matches = Matches(100)
    matches.add_before([60, 80], 50)
    matches.add_before([10], 0)
    matches.add_after([100, 120], 100, 140)
    matches.add_after([200], 190, 210)
    assert (len(matches), matches.low, matches.high) == (5, 0, 140)
    assert [matches.number(start) for start in (10, 80, 81, 120)] == [1, 3, None, 5]
    assert [matches.before(start) for start in (10, 11, 100, 999)] == [None, 10, 80, 120]
    assert [matches.after(start) for start in (0, 10, 100, 120)] == [10, 60, 120, None]


def test_too_many_matches_are_not_kept() -> None:
    matches = Matches(100, most=3)
    matches.add_before([10, 20, 30], 5)
    assert matches.is_full
    matches.add_before([1], 0)
    matches.add_after([110], 100, 120)
    assert (len(matches), matches.low, matches.high) == (3, 5, 100)
