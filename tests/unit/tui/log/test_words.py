"""An empty screen says why."""

from __future__ import annotations

from typing import Any, cast

import pytest

from daemon.client.answers import JobLine
from daemon.errors import DaemonAwayError, StudioqError
from tests.unit.tui.log.conftest import numbered
from tests.unit.tui.log.test_model import Reading
from tui.log import words
from tui.log.model import Model
from tui.log.search import Needle


def job(**given: Any) -> JobLine:
    line = {
        "id": 7,
        "user": "ben",
        "state": "queued",
        "reason": None,
        "position": None,
        "readable": True,
    }
    return cast("JobLine", line | given)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (job(), "No log yet. The job is queued."),
        (job(position=3), "No log yet. The job is queued, number 3 in the queue."),
        (job(state="running"), "No log yet. The job has just begun."),
        (
            job(state="waiting", reason="waits for job 3"),
            "No log yet. The job waits for job 3.",
        ),
        (job(state="held", reason="held by ana"), "No log yet. The job is held by ana."),
        (
            job(state="waiting", reason="the model is being fetched"),
            "No log yet. The job is waiting: the model is being fetched.",
        ),
        (job(state="succeeded"), "The job wrote no log. It succeeded."),
        (job(state="cancelled"), "The job wrote no log. It was cancelled."),
    ],
)
def test_empty(line: JobLine, text: str) -> None:
    assert words.empty(line) == text


def test_other_people_s_logs_are_theirs() -> None:
    assert words.hidden(job()) == ""
    assert "only ben and admins" in words.hidden(job(readable=False))


def test_trouble_is_short_beside_lines_and_long_without() -> None:
    away = DaemonAwayError("no daemon answers at /x", remedy="studioq daemon start")
    assert words.trouble(away, is_empty=False) == "the daemon is away, trying again"
    assert words.trouble(away, is_empty=True) == ""
    assert words.trouble(StudioqError("odd"), is_empty=False) == "odd"
    assert words.trouble(None, is_empty=False) == ""
    assert words.away(away) == "no daemon answers at /x.\nstudioq daemon start"


def test_place_and_news() -> None:
    model = Reading(numbered(1, 100)).model
    assert words.place(Model(), None) == ""
    assert words.place(model, 0) == "792 B"
    model.follow(False)
    assert words.place(model, 396) == "50 % of 792 B"
    assert words.news(model, ended=False) == ""
    model.unseen = 1
    assert words.news(model, ended=False) == "▼ 1 new line"
    model.unseen = 1234
    assert words.news(model, ended=False) == "▼ 1,234 new lines"
    model.follow(True)
    assert words.news(model, ended=False) == "● following"
    assert words.news(model, ended=True) == "end of the log"


def test_search() -> None:
    model = Reading(numbered(1, 100)).model
    assert words.search(model, searching=False, typing=False) == ""
    assert "enter searches" in words.search(model, searching=False, typing=True)
    model.search(Needle("9"))
    model.matches.add_before([700, 710], 396)
    assert words.search(model, searching=True, typing=False) == "/9  2+ matches, searched 50 %"
    model.matches.add_before([], 0)
    assert words.search(model, searching=False, typing=False) == "/9  2 matches"
    model.current = 710
    assert words.search(model, searching=False, typing=False) == "/9  2 of 2"
