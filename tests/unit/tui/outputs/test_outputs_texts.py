"""Texts: bounded, laid out, wrapped, streamed."""

from __future__ import annotations

import json

import pytest
from rich.cells import cell_len

from daemon.client import Part
from tui.outputs.stream import pieces
from tui.outputs.text_view import highlighted
from tui.outputs.texts import first_part, read_text
from tui.outputs.wrapping import MOST_CHARACTERS, MOST_LINES, Wrapped, breaks

PROSE = "The quick brown fox jumps over the lazy dog and internationalization follows. "


def shown(wrapped: Wrapped) -> list[str]:
    return [wrapped.text(piece) for piece in wrapped.pieces]


@pytest.mark.parametrize("width", [4, 7, 40, 200])
@pytest.mark.parametrize(
    "text", [PROSE * 5, "漢字かな混じり文" * 30, "é" * 100, "", " " * 50, "a\n\nb " + "x" * 99]
)
def test_lines_fit_and_nothing_is_lost(text: str, width: int) -> None:
    wrapped = Wrapped(width)
    wrapped.append(text)
    assert all(cell_len(line) <= width for line in shown(wrapped))
    assert "".join(shown(wrapped)) == text.replace("\n", "")


def test_lines_break_after_spaces() -> None:
    assert breaks("one two three", 8) == [8]
    assert breaks("one two three", 9) == [8]
    assert breaks("abcdefghij", 4) == [4, 8]


@pytest.mark.parametrize("size", [1, 3, 17])
def test_growing_gives_the_same_lines_as_being_there(size: int) -> None:
    text = (PROSE + "\n") * 3 + "漢字かな混じり文 " * 9
    whole, grown = Wrapped(20), Wrapped(20)
    whole.append(text)
    for start in range(0, len(text), size):
        grown.append(text[start : start + size])
    assert grown.pieces == whole.pieces
    assert grown.lines == whole.lines


def test_another_width() -> None:
    wrapped, other = Wrapped(20), Wrapped(33)
    wrapped.append(PROSE * 3)
    other.append(PROSE * 3)
    wrapped.rewrap(33)
    assert wrapped.pieces == other.pieces


@pytest.mark.parametrize("text", ["a line of a text\n" * 4_000, "x" * 300_000, "\n" * 9_000])
def test_what_grows_is_bounded_and_its_end_is_kept(text: str) -> None:
    wrapped = Wrapped(80)
    for _ in range(8):
        wrapped.append(text)
    wrapped.append("the end")
    assert wrapped.left_out
    assert sum(map(len, wrapped.lines)) <= MOST_CHARACTERS
    assert len(wrapped.lines) <= MOST_LINES
    assert wrapped.lines[-1].endswith("the end")


def test_only_the_first_part_is_read() -> None:
    taken = []

    def blocks() -> object:
        for number in range(100):
            taken.append(number)
            yield b"x" * 100

    assert first_part(blocks(), 250) == (b"x" * 250, True)  # type: ignore[arg-type]
    assert taken == [0, 1, 2]
    assert first_part([b"ab", b"c"], 3) == (b"abc", False)


def test_json_is_laid_out() -> None:
    text = read_text("a.json", b'{"a":[1,2]}', total=11, clipped=False)
    assert text.language == "json"
    assert json.loads(text.text) == {"a": [1, 2]}
    assert len(text.text.split("\n")) > 3
    assert read_text("a.json", b"{broken", total=7, clipped=False).text == "{broken"
    assert read_text("a.json", b"[" * 9_000, total=9_000, clipped=False).text == "[" * 9_000


def test_answers_are_laid_out_as_fields_and_numbers_as_lines() -> None:
    answer = json.dumps({"index": 0, "output": "one\ntwo", "tokens": 4}).encode()
    text = read_text("outputs.jsonl", answer, total=9, clipped=False)
    assert text.text == "── 1 ──\nindex: 0\noutput:\n  one\n  two\ntokens: 4"
    metrics = b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.25}\n[1]\nbroken\n'
    assert read_text("m.jsonl", metrics, total=9, clipped=False).text == metrics.decode().strip()


def test_a_long_file_says_what_is_left_out() -> None:
    text = read_text("a.txt", b"x" * 1000, total=5_000_000, clipped=True)
    assert text.note == "the first 1 kB of 5 MB"
    lines = read_text("a.txt", b"\n" * 30_000 + b"x", total=30_001, clipped=False)
    assert "20,000 of 30,001 lines" in lines.note
    cut = read_text("a.jsonl", b'{"a": 1}\n{"b', total=99, clipped=True)
    assert cut.text == '{"a": 1}'


def test_bytes_that_are_no_text_are_shown_safely() -> None:
    assert read_text("a.txt", b"\xff\x1b]0;title\x07", total=9, clipped=False).text == (
        "\ufffd\\x1b]0;title\\x07"
    )


def test_highlighting_changes_no_character() -> None:
    for line in ('  "a": [1, true, null],', "}", "{broken", "", '"', "── 1 ──", "key: value"):
        for language in ("json", "rows", "yaml", "markdown"):
            assert highlighted(line, language).plain == line
    assert highlighted('"a": 1', "json").spans


def part(data: bytes, offset: int, state: str = "running") -> Part:
    return Part(data=data, offset=offset, state=state)


def test_a_text_is_followed_to_its_end_through_a_new_attempt() -> None:
    answers = {0: [part(b"ab\xc3", 3), part(b"new", 3)], 3: [part(b"\xa9", 4)], 4: []}
    answers[4] = [part(b"", 4), part(b"xy", 2)]  # begun anew
    answers[2] = [part(b"", 2, "succeeded")]
    found = list(pieces(lambda offset: answers[offset].pop(0), lambda: True))
    assert [(piece.text, piece.anew, piece.ended) for piece in found] == [
        ("ab", True, False),
        ("é", False, False),
        ("xy", True, False),
        ("", False, True),
    ]


def test_what_streams_is_harmless_even_where_it_is_cut() -> None:
    answers = [part(b"a\r", 2), part(b"\nb\x1b", 5), part(b"[2J\r", 9), part(b"", 9, "failed")]
    found = list(pieces(lambda offset: answers.pop(0), lambda: True))
    assert "".join(piece.text for piece in found) == "a\nb\\x1b[2J\\r"


def test_a_text_that_nobody_wants_is_not_read() -> None:
    def read(offset: int) -> Part:
        raise AssertionError(offset)

    assert list(pieces(read, lambda: False)) == []
