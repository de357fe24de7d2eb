"""The API's parts on their own: ranges, bodies, peers, waiting."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Collection

import pytest

from daemon.api.bodies import parse_json
from daemon.api.ranges import parse_range
from daemon.api.watch import JobWatch
from daemon.errors import RangeError, UsageError
from daemon.peers import peer_uid


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=10-", (10, 10)),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_header(header: str | None, expected: tuple[int, int] | None) -> None:
    part = parse_range(header, 10)

    assert (None if part is None else (part.start, part.stop)) == expected


def test_a_range_behind_the_end_is_an_error() -> None:
    with pytest.raises(RangeError, match="has 10 bytes"):
        parse_range("bytes=11-", 10)


@pytest.mark.parametrize(
    "body", [b"{", b"NaN", b"-Infinity", b"1e400", b"9" * 401, b'"\\ud800"', b"\xff", b"[" * 99_999]
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(UsageError):
        parse_json(body)


def test_what_is_json_is_read() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, "\\u00e9\\ud83d\\ude00"]}') == {
        "a": [1, 2.5, None, "é😀"]
    }


def test_the_kernel_names_the_peer() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_uid(left) == os.geteuid()


def test_who_waits_is_told_and_nobody_else_is_asked_for() -> None:
    asked: list[Collection[int]] = []
    over: set[int] = set()
    changes = iter([False, False, True, False])

    def read_ended(numbers: Collection[int]) -> Collection[int]:
        asked.append(tuple(numbers))
        over.add(1)
        return over & set(numbers)

    async def wait() -> tuple[bool, bool]:
        watch = JobWatch(lambda: next(changes, True), read_ended, every=0.0)
        with watch.job(1) as first, watch.job(2) as second:
            return await first.wait(30), second.is_set

    assert asyncio.run(wait()) == (True, False)
    assert asked[0] == (1, 2)


def test_closing_lets_everyone_go() -> None:
    async def wait() -> bool:
        watch = JobWatch(lambda: False, lambda _numbers: (), every=0.0)
        with watch.job(1) as ended:
            asyncio.get_running_loop().call_soon(watch.close)
            return await ended.wait(30)

    assert asyncio.run(wait())
