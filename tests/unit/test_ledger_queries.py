from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.access import Person
from daemon.errors import NotFoundError
from daemon.ledger import attempts, details, jobs, queries
from daemon.ledger.attempts import Ending, File
from daemon.ledger.jobs import NewJob
from daemon.ledger.migrate import open_ledger
from daemon.ledger.queries import Filter
from daemon.ledger.states import AttemptState
from daemon.ledger.store import Ledger
from daemon.ledger.tables import User
from daemon.ledger.users import ensure_user
from daemon.ledger.views import iso

NOW = 1_000_000.0
ANN = Person(uid=501, name="user501")
Submit = Callable[..., int]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def submit(ledger: Ledger) -> Submit:
    def _submit(uid: int = 501, **options: Any) -> int:
        with ledger.writing() as session:
            user = ensure_user(session, uid=uid, name=f"user{uid}", now=NOW)
            new = NewJob(user_id=user.id, kind="noop", spec={"seed": 1}, **options)
            return jobs.submit(session, new, actor=user.name, now=NOW).id

    return _submit


def start(ledger: Ledger, number: int) -> int:
    with ledger.writing() as session:
        claim = attempts.claim(session, number, worker="w", device="d", now=NOW)
    assert claim is not None
    return claim.fence


def end(ledger: Ledger, fence: int, **values: Any) -> None:
    with ledger.writing() as session:
        ending = Ending(**({"state": AttemptState.SUCCEEDED} | values))
        attempts.end(session, fence, ending, now=NOW + fence)


def listed(ledger: Ledger, **wanted: Any) -> Any:
    with ledger.reading() as session:
        return queries.list_jobs(session, ANN, Filter(**wanted), now=NOW)


def ids(answer: Any) -> list[int]:
    return [line["id"] for line in answer["jobs"]]


def test_times_have_milliseconds_and_say_utc() -> None:
    assert iso(0.1239) == "1970-01-01T00:00:00.123Z"
    assert iso(None) is None


def test_a_long_queue_shows_what_runs_the_newest_and_the_latest_ended(
    ledger: Ledger, submit: Submit
) -> None:
    numbers = [submit() for _ in range(30)]
    for number in numbers[:3]:
        end(ledger, start(ledger, number))
    start(ledger, numbers[3])

    answer = listed(ledger, limit=10)

    assert ids(answer) == [30, 29, 28, 27, 26, 25, 24, 4, 3, 2]
    assert answer["total"] == 27 + 2


def test_ended_jobs_fill_what_the_queue_leaves(ledger: Ledger, submit: Submit) -> None:
    numbers = [submit() for _ in range(6)]
    for number in numbers[:5]:
        end(ledger, start(ledger, number))

    assert ids(listed(ledger, limit=4)) == [6, 5, 4, 3]
    assert ids(listed(ledger, limit=4, everything=True)) == [6, 5, 4, 3]
    assert listed(ledger, everything=True)["total"] == 6


def test_filters(ledger: Ledger, submit: Submit) -> None:
    submit()
    submit(502)
    end(ledger, start(ledger, submit(502)))

    assert ids(listed(ledger, user="user502")) == [3, 2]
    assert ids(listed(ledger, state="succeeded")) == [3]
    assert ids(listed(ledger, kind="train")) == []
    assert ids(listed(ledger, user="nobody")) == []


def test_changes_since_a_revision_are_never_lost(ledger: Ledger, submit: Submit) -> None:
    for _ in range(5):
        submit()
    seen: set[int] = set()
    revision = 0

    for _ in range(3):
        answer = listed(ledger, since=revision, limit=2)
        seen |= set(ids(answer))
        revision = answer["revision"]

    assert seen == {1, 2, 3, 4, 5}
    assert listed(ledger, since=revision)["jobs"] == []


def test_places_follow_priority_then_use_then_age(ledger: Ledger, submit: Submit) -> None:
    heavy = submit(501)
    light = submit(502)
    again = submit(502)
    urgent = submit(501, priority=10)
    late = submit(502, priority=-10)
    with ledger.writing() as session:
        user = session.get_one(User, 1)
        user.gpu_seconds, user.gpu_seconds_at = 100.0, NOW

    with ledger.reading() as session:
        found = queries.positions(session, [heavy, light, again, urgent, late], now=NOW)

    assert found == {urgent: 1, light: 2, again: 3, heavy: 4, late: 5}
    assert listed(ledger)["jobs"][0]["position"] == 5


def test_somebody_elses_line_says_nothing_of_its_inside(ledger: Ledger, submit: Submit) -> None:
    fence = start(ledger, submit(502))
    error = {"code": "x", "message": "row 3: secret", "field": None, "remedy": None}
    end(ledger, fence, state=AttemptState.FAILED, reason="row 3: secret", error=error)
    submit(502, after=[submit(502)])

    failed, *_ = listed(ledger, state="failed")["jobs"]
    waiting, *_ = listed(ledger, state="waiting")["jobs"]

    assert (failed["reason"], failed["error"], failed["readable"]) == (None, None, False)
    assert waiting["reason"] == "waits for job 2"


def test_an_unknown_job_is_not_found(ledger: Ledger) -> None:
    with ledger.reading() as session, pytest.raises(NotFoundError):
        queries.standing(session, 7)


def file(name: str, kind: str, content: str, step: int | None = None) -> File:
    return File(name=name, kind=kind, bytes=1, sha256=content * 64, step=step)


def test_of_one_name_the_newest_file_counts(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    first = start(ledger, number)
    with ledger.writing() as session:
        for step in (10, 20):
            found = file(f"checkpoint-{step}/a", "checkpoint", "a", step)
            attempts.add_checkpoint(
                session, first, step=step, folder=f"checkpoint-{step}", files=(found,), now=NOW
            )
    end(ledger, first, state=AttemptState.INTERRUPTED, reason="gone")
    second = start(ledger, number)
    with ledger.writing() as session:
        found = file("checkpoint-20/a", "checkpoint", "b", 20)
        attempts.add_checkpoint(
            session, second, step=20, folder="checkpoint-20", files=(found,), now=NOW
        )

    with ledger.reading() as session:
        files = details.artifacts(session, number)
        chosen = details.find_artifact(session, number, "checkpoint-20/a")
        with pytest.raises(NotFoundError):
            details.find_artifact(session, number, "checkpoint-30/a")

    assert [(item["name"], item["attempt"]) for item in files] == [
        ("checkpoint-10/a", 1),
        ("checkpoint-20/a", 2),
    ]
    assert (chosen["attempt"], chosen["sha256"]) == (2, "b" * 64)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((file("adapters.safetensors", "adapter", "a"), file("loss.png", "plot", "c")), True),
        ((file("adapters.safetensors", "adapter", "b"),), False),
        ((), False),
    ],
)
def test_a_repeat_is_compared_by_what_must_not_differ(
    ledger: Ledger, submit: Submit, files: tuple[File, ...], expected: bool
) -> None:
    first = submit()
    original = (file("adapters.safetensors", "adapter", "a"), file("loss.png", "plot", "b"))
    end(ledger, start(ledger, first), files=original)
    second = submit(repeats_id=first)
    end(ledger, start(ledger, second), files=files)

    with ledger.reading() as session:
        shown = details.show_job(session, second, ANN, now=NOW)

    assert (shown["repeats"], shown["identical"]) == (first, expected)


def run_with(ledger: Ledger, number: int, **facts: str) -> None:
    fence = start(ledger, number)
    with ledger.writing() as session:
        attempts.report_facts(session, fence, facts)
    end(ledger, fence)


def changed(ledger: Ledger, number: int) -> object:
    with ledger.reading() as session:
        return details.show_job(session, number, ANN, now=NOW)["changed"]


def test_a_repeat_tells_what_it_was_made_with_otherwise(ledger: Ledger, submit: Submit) -> None:
    first = submit()
    run_with(ledger, first, model_fingerprint="a", version_mlx="1", width="8", device="cpu")
    second = submit(repeats_id=first)
    assert changed(ledger, second) is None
    run_with(ledger, second, model_fingerprint="b", version_mlx="2", width="9", device="cpu")
    assert changed(ledger, second) == {"model_fingerprint": ["a", "b"], "version_mlx": ["1", "2"]}
    assert changed(ledger, first) is None


def test_a_repeat_of_a_job_that_recorded_nothing_tells_nothing(
    ledger: Ledger, submit: Submit
) -> None:
    first = submit()
    end(ledger, start(ledger, first))
    second = submit(repeats_id=first)
    run_with(ledger, second, model_fingerprint="b")
    assert changed(ledger, second) is None


def test_use_is_shared_among_all(ledger: Ledger, submit: Submit) -> None:
    end(ledger, start(ledger, submit(501)), gpu_seconds=30.0)
    end(ledger, start(ledger, submit(502)), gpu_seconds=10.0)
    submit(503)

    with ledger.reading() as session:
        users = details.usage(session, since=0.0, now=NOW)
        later = details.usage(session, since=NOW + 2, now=NOW)

    assert [(row["user"], row["jobs"], row["gpu_seconds"]) for row in users] == [
        ("user501", 1, 30.0),
        ("user502", 1, 10.0),
        ("user503", 0, 0.0),
    ]
    assert users[0]["share"] == pytest.approx(0.75, abs=0.01)
    assert later[0]["jobs"] == 0


def test_the_last_value_of_each_metric(ledger: Ledger, submit: Submit) -> None:
    number = submit()
    rows = [(1, "a", 1.0, NOW), (1, "b", 2.0, NOW), (2, "a", 3.0, NOW)]
    fence = start(ledger, number)
    with ledger.writing() as session:
        attempts.report_metrics(session, fence, rows)

    with ledger.reading() as session:
        assert details.last_metrics(session, number) == {"a": 3.0, "b": 2.0}
