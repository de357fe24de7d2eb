"""The client's pieces of a log: from the end, bounded, with the size of the whole."""

from __future__ import annotations

from tests.unit.tui.conftest import Studio


def test_pieces_say_how_long_the_log_is(studio: Studio) -> None:
    number = studio.add()
    with studio.connect() as client:
        empty = client.read_log(number, -4)
        assert (empty.data, empty.offset, empty.size) == (b"", 0, 0)
        studio.log(number, "0123456789")
        last = client.read_log(number, -4)
        assert (last.data, last.offset, last.size) == (b"6789", 10, 10)
        middle = client.read_log(number, 2, most=3)
        assert (middle.data, middle.offset, middle.size) == (b"234", 5, 10)
        at_end = client.read_log(number, 10)
        assert (at_end.data, at_end.offset, at_end.size) == (b"", 10, 10)
        whole = client.read_log(number, -99)
        assert (whole.data, whole.offset) == (b"0123456789", 10)


def test_a_log_that_was_begun_anew_is_read_from_its_start(studio: Studio) -> None:
    number = studio.add()
    studio.log(number, "new")
    with studio.connect() as client:
        part = client.read_log(number, 50, most=2)
        assert (part.data, part.offset, part.size) == (b"ne", 2, 3)
