from __future__ import annotations

import itertools
import queue

import pytest

from workers.engine.outbox import BUNDLE_EVERY, Outbox
from workers.events import Event, Log, Metric, Progress, SafePoint, Text
from workers.protocol import Happened, Message, Over, decode


class Desk:
    """An outbox with a clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.time = 100.0
        self.sent: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.outbox = Outbox(
            lambda line: self.sent.put(decode(line)),
            clock=lambda: self.time,
            now=lambda: self.time,
        )

    def events(self) -> list[Event | str]:
        found: list[Event | str] = []
        while not self.sent.empty():
            message = self.sent.get()
            found.append(message.event if isinstance(message, Happened) else message.state)  # type: ignore[union-attr]
        return found


@pytest.fixture
def desk() -> Desk:
    return Desk()


def progress(done: int) -> Progress:
    return Progress(done=done, total=9)


def test_the_first_of_a_series_goes_at_once_and_then_the_newest(desk: Desk) -> None:
    for done in range(5):
        desk.outbox.post(1, progress(done))
    assert desk.events() == [progress(0)]
    desk.time += BUNDLE_EVERY
    desk.outbox.post(1, progress(5))
    assert desk.events() == [progress(5)]


def test_text_is_joined_and_loses_nothing(desk: Desk) -> None:
    for piece in "abcdef":
        desk.outbox.post(1, Text(text=piece))
    desk.outbox.end(Over(attempt=1, state="succeeded"))
    assert desk.events() == [Text(text="a"), Text(text="bcdef"), "succeeded"]


def test_other_events_overtake_nothing(desk: Desk) -> None:
    desk.outbox.post(1, Text(text="a"))
    desk.outbox.post(1, Text(text="b"))
    desk.outbox.post(1, progress(1))
    desk.outbox.post(1, Log(text="after"))
    assert desk.events() == [Text(text="a"), Text(text="b"), progress(1), Log(text="after")]


def test_attempts_do_not_wait_for_each_other(desk: Desk) -> None:
    desk.outbox.post(1, progress(1))
    desk.outbox.post(2, progress(2))
    assert desk.events() == [progress(1), progress(2)]


def test_safe_points_are_not_sent(desk: Desk) -> None:
    desk.outbox.post(1, SafePoint())
    assert desk.events() == []


@pytest.mark.parametrize(
    "event",
    [
        Metric(step=1, values={"loss": float("inf")}),
        Progress(done=1, total=2, eta_seconds=float("nan")),
    ],
)
def test_numbers_that_are_not_finite_are_refused_where_they_arise(desk: Desk, event: Event) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        desk.outbox.post(1, event)


def test_what_waits_is_sent_while_the_job_says_nothing() -> None:
    desk = Desk()
    ticks = itertools.count(0.0, BUNDLE_EVERY / 4)
    outbox = Outbox(
        lambda line: desk.sent.put(decode(line)), clock=lambda: next(ticks), now=lambda: 0.0
    )
    outbox.start()
    outbox.post(1, progress(1))
    outbox.post(1, progress(2))
    for expected in (1, 2):
        message = desk.sent.get(timeout=30)
        assert isinstance(message, Happened)
        assert message.event == progress(expected)
