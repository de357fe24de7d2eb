"""Those who wait see every byte once, and survive a daemon that is away for a while."""

from __future__ import annotations

import pytest

from daemon.client.follow import PAUSE, Part, Patience, follow, until_ended
from daemon.errors import DaemonAwayError, WaitTimedOutError


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps = 0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1

    def patience(self, seconds: float | None = None) -> Patience:
        return Patience(seconds=seconds, grace=10.0, clock=self.clock, sleep=self.sleep)


class Log:
    """A log in memory that grows by one of ``pieces`` at each look; None: the daemon is away."""

    def __init__(self, time: Time, pieces: list[bytes | None], state: str = "succeeded") -> None:
        self.time = time
        self.pieces = pieces
        self.state = state
        self.content = b""

    def read(self, offset: int, wait: float) -> Part:
        piece = self.pieces.pop(0) if self.pieces else b""
        if piece is None:
            raise DaemonAwayError("away")
        self.content += piece
        self.time.now += min(wait, 1.0)
        data = self.content[offset:]
        state = "running" if self.pieces else self.state
        return Part(data=data, offset=offset + len(data), state=state)


def test_every_byte_comes_once_and_split_characters_are_whole() -> None:
    time = Time()
    text = "Iter 1: Train loss 2.0\nüß 日本\n"
    whole = text.encode()
    log = Log(time, [whole[i : i + 1] for i in range(len(whole))])
    pieces = list(follow(log.read, offset=0, patience=time.patience(), number=1))
    assert "".join(pieces) == text
    assert "�" not in "".join(pieces)


def test_a_follower_begins_where_it_is_told() -> None:
    log = Log(Time(), [b"one two"])
    assert "".join(follow(log.read, offset=4, patience=Time().patience(), number=1)) == "two"


def test_bytes_that_are_no_text_do_not_end_the_following() -> None:
    time = Time()
    log = Log(time, [b"a\xff", b"b\xe6"])
    assert "".join(follow(log.read, offset=0, patience=time.patience(), number=1)) == "a�b�"


def test_a_restart_in_between_is_survived() -> None:
    time = Time()
    log = Log(time, [b"one ", None, None, b"two"])
    assert "".join(follow(log.read, offset=0, patience=time.patience(), number=1)) == "one two"
    assert time.sleeps >= 2


def test_a_daemon_that_never_answered_is_not_waited_for() -> None:
    time = Time()
    with pytest.raises(DaemonAwayError):
        list(follow(Log(time, [None]).read, offset=0, patience=time.patience(), number=1))
    assert time.sleeps == 0


def test_the_grace_has_an_end() -> None:
    time = Time()
    log = Log(time, [b"one ", *[None] * 1000])
    with pytest.raises(DaemonAwayError):
        list(follow(log.read, offset=0, patience=time.patience(), number=1))
    assert time.now == pytest.approx(11.0, abs=1.0)


def test_a_timeout_names_the_job_and_how_to_wait_again() -> None:
    time = Time()
    log = Log(time, [b""], state="running")
    with pytest.raises(WaitTimedOutError, match="job 7 had not ended when") as caught:
        list(follow(log.read, offset=0, patience=time.patience(5.0), number=7))
    assert caught.value.remedy == "studioq wait 7"


def test_until_ended_returns_the_ending_or_nothing() -> None:
    time = Time()
    answers = iter([False, False, True])
    assert until_ended(lambda _: next(answers), bool, patience=time.patience()) is True
    assert until_ended(lambda _: False, bool, patience=time.patience(3.0)) is None


def test_a_daemon_that_lets_nobody_wait_is_not_asked_in_a_busy_loop() -> None:
    time = Time()
    asked = []

    def poll(seconds: float) -> bool:
        asked.append(seconds)
        return False

    until_ended(poll, bool, patience=time.patience(10.0))
    assert len(asked) <= 10.0 / PAUSE + 1
