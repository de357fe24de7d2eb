"""What the client can read, and what it refuses to guess."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from daemon.cli.values import JOB, LAYERS, NAMES, NUMBER, parse_duration, parse_time

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("3d", 259200)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "h", "-2h", "2 h", "2H", "1e3s", "2h-"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_times() -> None:
    assert parse_time("+2h", NOW) == NOW + timedelta(hours=2)
    assert parse_time("-7d", NOW) == NOW - timedelta(days=7)
    assert parse_time("2026-12-24T18:00Z", NOW) == datetime(2026, 12, 24, 18, tzinfo=UTC)
    assert parse_time("2026-12-24T18:00+02:00", NOW) == datetime(2026, 12, 24, 16, tzinfo=UTC)
    local = datetime(2026, 12, 24, 18).astimezone()
    assert parse_time("2026-12-24 18:00", NOW) == local


@pytest.mark.parametrize("text", ["", "tomorrow", "+2", "18:00", "2026-13-01"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_time(text, NOW)


def test_job_numbers() -> None:
    assert JOB.convert("12", None, None) == 12
    assert JOB.convert("job:12", None, None) == 12
    for text in ("0", "-1", "1.5", "job:", "²", "job:12@3"):
        with pytest.raises(click.BadParameter, match="is not a job's number"):
            JOB.convert(text, None, None)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "many"])
def test_numbers_that_json_does_not_know(text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"'{text}' is not a"):
        NUMBER.convert(text, None, None)


def test_layers_and_names() -> None:
    assert LAYERS.convert("all", None, None) == "all"
    assert LAYERS.convert("4", None, None) == 4
    assert NAMES.convert("q_proj, v_proj", None, None) == ["q_proj", "v_proj"]
    with pytest.raises(click.BadParameter, match="neither a number of layers nor all"):
        LAYERS.convert("some", None, None)
