"""What reaches the screen is printable, and coloured as it was."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.style import Style

from tui.log.ansi import clean


@settings(deadline=None)
@given(raw=st.text())
def test_nothing_but_printable_text_comes_out(raw: str) -> None:
    text, spans = clean(raw)
    assert all(c.isprintable() or c.isalpha() or ord(c) > 0xE000 or c > "\u0377" for c in text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
    assert all(0 <= start < end <= len(text) for start, end, _ in spans)


_PIECES = [
    "\x1b[",
    "\x1b]",
    "\x1b",
    "31",
    ";",
    "m",
    "\x07",
    "K",
    "38;5;",
    "38;2;1;2;3",
    "text",
    "\t",
]


@settings(deadline=None)
@given(raw=st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_broken_sequences_do_no_harm(raw: str) -> None:
    text, _ = clean(raw)
    assert text.isprintable()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\tb", "a       b"),
        ("日\tb", "日      b"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2K\x1b[1Aup", "up"),
        ("\x1b(Bx", "x"),
        ("bell\x07", "bell␇"),
        ("\x1b", "␛"),
        ("a\u00a0b\u202ec\u200dd", "a bcd"),
        ("\x7f\x85", "␡\ufffd"),
    ],
)
def test_texts(raw: str, text: str) -> None:
    assert clean(raw)[0] == text


@pytest.mark.parametrize(
    ("codes", "style"),
    [
        ("31", Style(color="color(1)")),
        ("1;92", Style(bold=True, color="color(10)")),
        ("44", Style(bgcolor="color(4)")),
        ("103", Style(bgcolor="color(11)")),
        ("38;5;208", Style(color="color(208)")),
        ("38;5;999", Style(color="color(255)")),
        ("48;2;1;2;3", Style(bgcolor="#010203")),
        ("1;2;22;3", Style(italic=True)),
        ("31;39;4", Style(underline=True)),
        ("30;47", Style(color="color(0)", bgcolor="color(7)")),
    ],
)
def test_styles(codes: str, style: Style) -> None:
    assert clean(f"\x1b[{codes}mx")[1] == ((0, 1, style),)


@pytest.mark.parametrize(
    "codes", ["", "0", "31;0", "5", "8", "38", "38;5", "38;2;1", "99999999999"]
)
def test_what_is_off_or_unknown_leaves_no_style(codes: str) -> None:
    assert clean(f"\x1b[{codes}mx") == ("x", ())


@pytest.mark.parametrize("codes", ["30", "37", "97"])
def test_black_and_white_are_the_theme_s_own(codes: str) -> None:
    assert clean(f"\x1b[{codes}mx")[1] == ()
    assert clean(f"\x1b[1;{codes}mx")[1] == ((0, 1, Style(bold=True)),)
