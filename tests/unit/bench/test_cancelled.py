from __future__ import annotations

from daemon.bench.jobs import Cancelled


def test_nothing_is_said_of_a_benchmark_that_left_nothing() -> None:
    assert list(Cancelled().lines()) == []


def test_each_job_is_said_to_be_what_it_is() -> None:
    lines = list(Cancelled(gone=(5, 6), going=(4,), unsure=(7,), why="no daemon answers").lines())
    assert lines == [
        "cancelled: jobs 5 6",
        "job 4 is being cancelled and ends at the next safe point",
        "job 7 may be left in the queue: no daemon answers; remedy: studioq cancel 7",
    ]
