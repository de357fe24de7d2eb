"""What may be done with which job."""

from __future__ import annotations

import pytest

from daemon.client import Client
from daemon.client.answers import JobLine
from daemon.ledger.states import AttemptState
from tests.unit.tui.conftest import Studio
from tests.unit.tui.lines import line
from tui.actions import offered, question, raised


@pytest.mark.parametrize(
    ("state", "names"),
    [
        ("running", {"cancel", "finish", "priority_low"}),
        ("queued", {"cancel", "hold", "priority_low"}),
        ("waiting", {"cancel", "hold", "priority_low"}),
        ("held", {"cancel", "release", "priority_low"}),
        ("succeeded", {"repeat"}),
        ("failed", {"retry", "repeat"}),
        ("cancelled", {"retry", "repeat"}),
    ],
)
def test_only_what_the_state_allows_is_offered(state: str, names: set[str]) -> None:
    assert {action.name for action in offered(line(state=state), admin=False)} == names


def test_other_people_s_jobs_are_read_only() -> None:
    theirs = line(mine=False, state="running")
    assert offered(theirs, admin=False) == ()
    assert offered(theirs, admin=True)
    assert offered(None, admin=True) == ()


def test_high_priority_is_an_admin_s() -> None:
    assert raised(line(priority="normal"), admin=False) is None
    action = raised(line(priority="normal"), admin=True)
    assert action is not None
    assert action.name == "priority_high"
    assert raised(line(priority="high"), admin=True) is None


def test_a_question_names_the_job() -> None:
    job = line(7, name="lora", state="running", mine=False, user="ben")
    asked = {action.name: question(action, job) for action in offered(job, admin=True)}
    assert "job 7 (lora) of ben" in str(asked["cancel"])
    assert asked["priority_low"] is None


def test_the_daemon_does_what_is_offered(studio: Studio) -> None:
    numbers = [studio.add() for _ in range(3)]
    studio.start(numbers[1])
    studio.start(numbers[2])
    studio.end(numbers[2], AttemptState.FAILED, error={"code": "job_error", "message": "no"})
    with studio.connect() as client:
        for number in numbers:
            for name in [action.name for action in offered(_line(client, number), admin=True)]:
                job = _line(client, number)
                action = next((a for a in offered(job, admin=True) if a.name == name), None)
                if action is not None:
                    assert str(number) in action.run(client, job)


def _line(client: Client, number: int) -> JobLine:
    jobs = client.jobs(everything=True)["jobs"]
    return next(job for job in jobs if job["id"] == number)
