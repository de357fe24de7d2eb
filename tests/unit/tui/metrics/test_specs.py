"""Differences of specs, and the sentences of the tab."""

from __future__ import annotations

from typing import Any, cast

from daemon.client.answers import JobLine
from daemon.errors import ConflictError, DaemonAwayError
from tui.metrics import notes
from tui.metrics.picker import matching, option, words
from tui.metrics.specs import Difference, cut, differences


def test_equal_fields_are_left_out_and_files_are_told_by_their_hash() -> None:
    this = {"rank": 8, "seed": 1, "data": {"train": {"name": "a", "sha256": "ab" * 32}}}
    other = {"rank": 16, "seed": 1, "data": {"train": {"name": "b", "sha256": "cd" * 32}}}
    assert differences(this, other) == [
        Difference(field="rank", this="8", other="16"),
        Difference(field="data.train", this="a (abababab)", other="b (cdcdcdcd)"),
    ]


def test_values_are_written_for_people() -> None:
    this: dict[str, Any] = {"lr": 1e-5, "keys": ["q", "v"], "mask": True, "gone": 1}
    other: dict[str, Any] = {"lr": 3e-5, "keys": None, "mask": False, "new": {"a": 1}}
    found = {entry.field: (entry.this, entry.other) for entry in differences(this, other)}
    assert found == {
        "lr": ("1e-5", "3e-5"),
        "keys": ("q, v", "-"),
        "mask": ("yes", "no"),
        "gone": ("1", "-"),
        "new.a": ("-", "1"),
    }
    assert differences(this, this) == []


def test_long_and_hostile_texts_are_one_short_line() -> None:
    assert cut("a\n\x1b[31mb", 20) == "a [31mb"
    assert cut("x" * 1000, 10) == "x" * 9 + "…"
    assert len(cut("y " * 1000, 10)) <= 10


def line(**values: Any) -> JobLine:
    known = {"id": 7, "state": "queued", "reason": None, "error": None, "user": "ben"}
    return cast("JobLine", {**known, "name": "poster", "model": "smol", **values})


def test_an_empty_tab_says_why() -> None:
    assert notes.empty(line(reason="waits for job 3")).endswith("queued: waits for job 3")
    assert "runs" in notes.empty(line(state="running"))
    error = {"message": "the GPU's memory is full"}
    assert "failed: the GPU's memory" in notes.empty(line(state="failed", error=error))
    assert "was cancelled." in notes.empty(line(state="cancelled"))
    assert "ben's" in notes.unreadable(line())


def test_troubles() -> None:
    assert "goes on" in notes.trouble(DaemonAwayError("no"))
    assert notes.trouble(ConflictError("a", remedy="b")) == "a. b"
    assert notes.compared(3, None) == "compared with job 3"
    assert "the same" in notes.compared(3, [])
    assert "1 field " in notes.compared(3, [1])


def test_the_filter_takes_words_in_any_order() -> None:
    jobs = [line(), line(id=8, name="lora", user="ana")]
    assert matching(jobs, "POSTER ben") == jobs[:1]
    assert matching(jobs, "") == jobs
    assert "lora" in words(jobs[1])


def test_jobs_that_may_not_be_read_cannot_be_chosen() -> None:
    assert not option(line(readable=True)).disabled
    refused = option(line(readable=False))
    assert refused.disabled
    assert "not yours to read" in str(refused.prompt)
