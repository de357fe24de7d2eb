"""What comes at the end disturbs nobody, and what was asked for fits or is passed over."""

from __future__ import annotations

from tests.unit.tui.log.conftest import numbered
from tests.unit.tui.log.memory import MemoryLog
from tui.log.model import Model, Way
from tui.log.search import Needle
from tui.log.source import Follower, Piece, read_after, read_before
from tui.log.window import Window


class Reading:
    """A model, and a follower over a log in memory."""

    def __init__(self, text: str, *, most: int = 50) -> None:
        self.log = MemoryLog(text.encode())
        self.model = Model(Window(lines=most))
        self.follower = Follower(self.log.read)
        self.follow()

    def follow(self, text: str = "") -> None:
        self.log.content += text.encode()
        self.model.take(self.follower.next(0.0))

    def before(self, stop: int, most: int = 200) -> Piece:
        piece = read_before(self.log.read, stop, most)
        assert piece is not None
        return piece

    def after(self, start: int, most: int = 200) -> Piece:
        piece = read_after(self.log.read, start, most)
        assert piece is not None
        return piece

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.model.window]


def test_who_follows_sees_the_last_lines() -> None:
    reading = Reading(numbered(1, 100))
    assert reading.texts == [f"line {n}" for n in range(51, 101)]
    reading.follow("line 101\nli")
    assert reading.texts == [f"line {n}" for n in range(52, 102)] + ["li"]
    assert reading.model.unseen == 0
    assert reading.model.is_at_end


def test_who_has_gone_up_keeps_the_lines_and_hears_how_many_have_come() -> None:
    reading = Reading(numbered(1, 100))
    reading.model.follow(False)
    reading.follow(numbered(101, 110))
    assert reading.texts == [f"line {n}" for n in range(51, 101)]
    assert reading.model.unseen == 10
    assert not reading.model.is_at_end
    reading.follow(numbered(111, 111))
    assert reading.model.unseen == 11
    reading.model.follow(True)
    assert reading.model.unseen == 0


def test_lines_are_taken_while_there_is_room_also_for_who_has_gone_up() -> None:
    reading = Reading(numbered(1, 10))
    reading.model.follow(False)
    reading.follow(numbered(11, 12))
    assert reading.texts[-1] == "line 12"
    assert reading.model.is_at_end


def test_an_open_line_goes_when_its_end_is_not_taken() -> None:
    reading = Reading(numbered(1, 50) + "half")
    reading.model.follow(False)
    reading.follow(" a line\n")
    assert reading.texts[-1] == "line 50"


def test_one_can_go_up_to_the_beginning_and_down_to_the_end() -> None:
    reading = Reading(numbered(1, 300) + "open")
    model = reading.model
    model.follow(False)
    while model.window.start > 0:
        assert model.take_asked(reading.before(model.window.start), Way.UP)
        assert len(model.window.lines) <= 50
    assert reading.texts[0] == "line 1"
    while not model.is_at_end:
        assert model.take_asked(reading.after(model.window.stop), Way.DOWN)
        assert len(model.window.lines) <= 50
    assert reading.texts[-2:] == ["line 300", "open"]


def test_a_piece_that_no_longer_fits_is_passed_over() -> None:
    reading = Reading(numbered(1, 300))
    model = reading.model
    before = reading.before(model.window.start)
    assert model.take_asked(before, Way.UP)
    texts = reading.texts
    assert not model.take_asked(before, Way.UP)
    assert not model.take_asked(before, Way.DOWN)
    assert reading.texts == texts


def test_anywhere_can_be_gone_to() -> None:
    reading = Reading(numbered(1, 300))
    assert reading.model.take_asked(reading.after(0), Way.ANEW)
    assert reading.texts[0] == "line 1"
    assert not reading.model.is_at_end
    assert reading.model.take_asked(reading.before(reading.log.content.__len__()), Way.ANEW)
    assert reading.texts[-1] == "line 300"
    assert reading.model.is_at_end


def test_a_log_that_was_begun_anew_replaces_everything() -> None:
    reading = Reading(numbered(1, 100))
    reading.model.follow(False)
    reading.model.search(Needle("line"))
    reading.log.content = b"new\n"
    reading.follow()
    assert reading.texts == ["new"]
    assert reading.model.following
    assert (reading.model.matches.low, len(reading.model.matches)) == (4, 0)


def starts(reading: Reading, text: str) -> list[int]:
    content = reading.log.content.decode()
    return [i for i in range(len(content)) if content.startswith(f"{text}\n", i)]


def test_matches_in_memory_are_found_without_the_file() -> None:
    reading = Reading(numbered(1, 100))
    model = reading.model
    model.search(Needle("7"))
    (last,), (before,) = starts(reading, "line 97"), starts(reading, "line 87")
    assert model.above(len(reading.log.content)) == last
    assert model.above(last) == before
    assert model.below(before) == last
    assert model.below(last) is None


def test_matches_elsewhere_are_found_once_the_file_was_searched() -> None:
    reading = Reading(numbered(1, 200))
    model = reading.model
    model.search(Needle("line 9"))
    assert model.above(model.size) is None
    (nine,), (ninety,) = starts(reading, "line 9"), starts(reading, "line 90")
    model.matches.add_before([ninety], ninety)
    assert model.above(model.size) == ninety
    assert model.above(ninety) is None
    model.matches.add_before([nine], 0)
    assert model.above(ninety) == nine
    assert model.below(nine) == ninety


def test_what_the_search_has_not_reached_is_not_skipped() -> None:
    reading = Reading(numbered(1, 300))
    model = reading.model
    model.search(Needle("0"))
    (late,), (ten,) = starts(reading, "line 290"), starts(reading, "line 10")
    model.matches.add_before([late], late)
    model.take_asked(reading.after(0), Way.ANEW)
    (twenty,) = starts(reading, "line 20")
    assert model.below(ten) == twenty
    assert model.below(model.window.lines[-1].start) is None
    (far,) = starts(reading, "line 280")
    model.matches.add_before([far], far)
    assert model.above(late) == far


def test_new_lines_are_searched_as_they_come() -> None:
    reading = Reading(numbered(1, 10))
    reading.model.search(Needle("new"))
    reading.model.follow(False)
    reading.follow("a new line\nanother\n")
    assert len(reading.model.matches) == 1
    assert reading.model.below(0) == reading.log.content.index(b"a new")
