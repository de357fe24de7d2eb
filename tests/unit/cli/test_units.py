"""What people read: durations, sizes, times, and tables that fit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from daemon.cli import units
from daemon.cli.states import title, visible
from daemon.cli.table import Column, cell_width, clip, render

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (None, ""),
        (0, "0.0s"),
        (9.94, "9.9s"),
        (52, "52s"),
        (119.4, "119s"),
        (120, "2m"),
        (1085, "18m"),
        (7500, "2h05m"),
        (3 * 86400 + 4 * 3600, "3d04h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float | None, written: str) -> None:
    assert units.duration(seconds) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (None, ""),
        (812, "812"),
        (1234, "1.23k"),
        (134_515_008, "135M"),
        (999_600_000, "1B"),
        (7_241_732_096, "7.24B"),
        (1.5e12, "1500B"),
    ],
)
def test_a_large_number_has_three_digits(number: float | None, written: str) -> None:
    assert units.count(number) == written


@pytest.mark.parametrize(
    ("count", "written"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (3_210_000, "3.21 MB"), (14e9, "14 GB")],
)
def test_a_size_is_decimal(count: float | None, written: str) -> None:
    assert units.size(count) == written


def test_a_running_job_has_run_until_now() -> None:
    start = "2026-11-23T11:59:00.000Z"
    assert units.seconds_between(start, None, NOW) == 60
    assert units.seconds_between(start, "2026-11-23T11:59:30.500Z", NOW) == 30.5
    assert units.seconds_between(None, None, NOW) is None


def test_wide_characters_take_two_cells() -> None:
    assert cell_width("日本") == 4
    assert cell_width("e\u0301") == 1
    assert clip("日本語", 5) == "日本…"
    assert clip("abc", 3) == "abc"
    assert clip("abcd", 3) == "ab…"


COLUMNS = (
    Column(title="#", right=True),
    Column(title="name", least=4),
    Column(title="note", least=4),
)
ROWS = (("1", "a name that is long", "a note that is longer still"), ("12", "b", ""))


def test_a_table_fits_the_terminal() -> None:
    for width in (60, 40, 30, 20):
        assert max(map(len, render(COLUMNS, ROWS, width=width))) <= width


def test_a_table_is_whole_in_a_pipe() -> None:
    lines = render(COLUMNS, ROWS, width=None)
    assert lines[0] == " #  name                 note"
    assert lines[1] == " 1  a name that is long  a note that is longer still"
    assert lines[2] == "12  b"


def test_columns_keep_their_least_width_on_a_tiny_terminal() -> None:
    assert "a n…" in render(COLUMNS, ROWS, width=3)[1]


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert visible("a\x1b]0;owned\x07b\tc\n") == "a\\x1b]0;owned\\x07b\tc\n"


START, RESTART = "2026-11-23T11:00:00.000Z", "2026-11-23T11:59:00.000Z"


@pytest.mark.parametrize(
    ("job", "seconds"),
    [
        ({"state": "queued", "started_at": None}, None),
        ({"state": "running", "started_at": START}, 3600),
        ({"state": "running", "attempt_started_at": START}, 3600),
        ({"state": "running", "attempt_started_at": RESTART, "gpu_seconds": 40.0}, 100),
        ({"state": "queued", "gpu_seconds": 40.0}, 40),
        ({"state": "failed", "ended_at": RESTART, "gpu_seconds": 40.0}, 40),
        ({"state": "failed", "ended_at": RESTART, "gpu_seconds": 0.0}, 3540),
    ],
)
def test_a_job_has_run_while_its_attempts_did(job: dict[str, Any], seconds: float | None) -> None:
    assert units.running_seconds({"started_at": START, "ended_at": None} | job, NOW) == seconds


def test_a_conversion_without_a_name_is_called_after_its_models() -> None:
    job = {"name": None, "model": "llama-7b", "to": "q-4"}
    assert title(job).replace("->", "→") == "llama-7b → q-4"
    assert title(job | {"name": "small"}) == "small"
    assert title({"name": None, "model": "shapes"}) == "shapes"
