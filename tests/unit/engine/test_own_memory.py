from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import pytest

from workers.memory import free_unused
from workers.own_memory import MemoryBook

MB = 1 << 20


class Shelf:
    """Arrays that stand for kept models, of which those in ``used`` are borrowed."""

    def __init__(self) -> None:
        self.kept: dict[str, mx.array] = {}
        self.used: set[str] = set()
        self.book = MemoryBook(self.idle_bytes)

    def idle_bytes(self) -> int:
        return sum(array.nbytes for name, array in self.kept.items() if name not in self.used)

    def load(self, name: str, megabytes: int) -> None:
        model = array(megabytes)
        self.book.settle()
        self.kept[name] = model

    def borrow(self, *names: str) -> None:
        self.book.settle()
        self.used = set(names)

    def drop(self, name: str) -> None:
        self.book.settle()
        del self.kept[name]


def array(megabytes: int) -> mx.array:
    made = mx.zeros((megabytes * MB,), dtype=mx.uint8)
    mx.eval(made)
    return made


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    free_unused()
    shelf = Shelf()
    yield shelf
    shelf.kept.clear()
    free_unused()


def roughly(count: int) -> int:
    """Return whole megabytes; a scalar's few bytes do not count."""
    return round(count / MB)


def test_what_is_kept_and_what_was_there_before_is_not_an_attempts_own(shelf: Shelf) -> None:
    leftover = array(3)
    shelf.load("other", 8)
    own = shelf.book.begin()
    assert (roughly(own.peak()), roughly(own.active())) == (0, 0)
    work = array(2)
    assert roughly(own.active()) == 2
    del work
    assert (roughly(own.peak()), roughly(own.active())) == (2, 0)
    del leftover


def test_a_borrowed_model_is_the_attempts_own_whether_warm_or_cold(shelf: Shelf) -> None:
    shelf.load("other", 8)
    peaks = []
    for _ in ("cold", "warm"):
        own = shelf.book.begin()
        if "model" not in shelf.kept:
            shelf.load("model", 4)
        shelf.borrow("model")
        array(2)
        shelf.borrow()
        array(1)
        peaks.append(roughly(own.peak()))
        own.end()
    assert peaks == [6, 6]


def test_a_model_that_made_room_is_not_counted_nor_its_room_taken_off(shelf: Shelf) -> None:
    shelf.load("large", 16)
    own = shelf.book.begin()
    shelf.drop("large")
    shelf.load("model", 4)
    shelf.borrow("model")
    array(2)
    assert roughly(own.peak()) == 6
    assert roughly(shelf.book.highest()) >= 16


def test_an_attempt_that_has_ended_leaves_the_next_its_own_peak(shelf: Shelf) -> None:
    first = shelf.book.begin()
    array(9)
    first.end()
    second = shelf.book.begin()
    array(1)
    assert roughly(second.peak()) == 1


def test_of_attempts_that_take_turns_each_holds_what_the_others_use(shelf: Shelf) -> None:
    shelf.load("model", 4)
    first = shelf.book.begin()
    shelf.borrow("model")
    work = array(2)
    second = shelf.book.begin()
    array(1)
    del work
    assert (roughly(first.peak()), roughly(second.peak())) == (7, 7)
    first.end()
    shelf.borrow()
    assert roughly(second.active()) == 0
