from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.ledger import attempts
from daemon.ledger.attempts import Ending, File
from daemon.ledger.states import AttemptState

Submit = Callable[..., int]
NOW = 1_800_000_000.0


def run_to_end(stage: Any, number: int, **ending: Any) -> int:
    """Claim the job and end its attempt, as a worker would; return the fence."""
    with stage.ledger.writing() as session:
        claim = attempts.claim(session, number, worker="w", device="cpu", now=NOW)
        assert claim is not None
        values = {"state": AttemptState.SUCCEEDED} | ending
        attempts.end(session, claim.fence, Ending(**values), now=NOW + 2.0)
    return int(claim.fence)


def test_a_submission_is_queued_under_its_users_name(stage: Any, peer: Any) -> None:
    answer = peer.ask("POST", "/jobs", {"kind": "noop", "spec": {"steps": 2}, "name": "first"})

    told = {"id": 1, "state": "queued", "reason": None, "notes": []}
    assert (answer.status, answer.json) == (201, told)
    assert answer.headers["studioq-version"]
    shown = peer.ask("GET", "/jobs/1").json
    assert shown["name"] == "first"
    assert shown["spec"]["steps"] == 2
    assert isinstance(shown["spec"]["seed"], int)
    assert shown["position"] == 1
    assert shown["user"] == peer.ask("GET", "/status").json["me"]["name"]


def test_a_list_has_the_lines_of_the_contract(peer: Any, submit: Submit) -> None:
    submit(peer)
    second = submit(peer, after=[1])

    answer = peer.ask("GET", "/jobs").json

    assert answer["total"] == 2
    assert [line["id"] for line in answer["jobs"]] == [second, 1]
    assert answer["jobs"][0]["reason"] == "waits for job 1"
    assert set(answer["jobs"][0]) == {
        *("id", "kind", "name", "user", "state", "reason", "priority", "position", "model"),
        *("created_at", "started_at", "ended_at", "progress", "peak_memory_bytes"),
        *("to", "attempt_started_at"),
        *("gpu_seconds", "revision", "mine", "readable", "error"),
    }


def test_since_gives_what_has_changed(peer: Any, submit: Submit) -> None:
    submit(peer)
    revision = peer.ask("GET", "/jobs").json["revision"]
    submit(peer)
    peer.ask("POST", "/jobs/1/hold")

    changed = peer.ask("GET", f"/jobs?since={revision}").json

    assert [line["id"] for line in changed["jobs"]] == [2, 1]
    assert peer.ask("GET", f"/jobs?since={changed['revision']}").json["jobs"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("state=gone", "state"),
        ("kind=bake", "kind"),
        ("since=-1", "since"),
        ("since=99999999999999999999999", "since"),
        ("all=perhaps", "all"),
    ],
)
def test_a_wrong_filter_is_named(peer: Any, query: str, field: str) -> None:
    answer = peer.ask("GET", f"/jobs?{query}")

    assert answer.status == 400
    assert answer.error["code"] == "usage"
    assert answer.error["field"] == field


@pytest.mark.parametrize("number", ["0", "x", "-1", "999999999999999999999", "٣", "1.0", "7"])
def test_no_such_job(peer: Any, number: str) -> None:
    from urllib.parse import quote

    answer = peer.ask("GET", f"/jobs/{quote(number)}")

    assert answer.status == 404
    assert answer.error["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"\xff\xfe", 400),
        (b'{"kind": "noop", "spec": {"seed": NaN}}', 400),
        (b'{"kind": "noop", "spec": {"step_seconds": 1e999}}', 400),
        (b'{"kind": "noop", "spec": {"seed": ' + b"9" * 5000 + b"}}", 400),
        (b'{"kind": "noop", "spec": {"seed": ' + b"9" * 300 + b"}}", 422),
        (b'{"kind": "noop", "spec": ' + b"[" * 100_000 + b"}", 400),
        (b'{"kind": "noop", "spec": {"a\\ud800": 1}}', 400),
        (b'{"kind": "noop", "spec": {}, "name": "a\\nb"}', 422),
        (b'{"kind": "noop", "spec": {}, "begin_at": 1e300}', 422),
        (b'{"kind": "noop", "spec": {}, "after": [' + b"9" * 40 + b"]}", 422),
        (b'{"kind": "noop", "spec": {}, "after": [99]}', 422),
        (b'{"kind": "bake", "spec": {}}', 422),
        (b'{"kind": "noop", "spec": {"stepz": 1}}', 422),
        (b'{"kind": "noop", "spec": {}, "priority": "urgent"}', 422),
        (b" " * (4 * 2**20 + 1), 413),
    ],
)
def test_a_bad_submission_is_refused_in_one_shape(peer: Any, body: bytes, status: int) -> None:
    answer = peer.ask("POST", "/jobs", body)

    assert answer.status == status, answer.body
    assert set(answer.error) == {"code", "message", "field", "remedy"}
    assert answer.error["message"]
    assert peer.ask("GET", "/jobs").json["total"] == 0


def test_an_unknown_path_and_method_have_the_same_shape(peer: Any) -> None:
    for method, target, status in (("GET", "/nope", 404), ("DELETE", "/jobs", 405)):
        answer = peer.ask(method, target)
        assert answer.status == status
        assert answer.error["code"] == "usage"


def test_a_failure_of_the_daemons_own_tells_no_details(stage: Any, peer: Any) -> None:
    submit_body = {"kind": "noop", "spec": {}}
    stage.ledger.path.with_name("ledger.db").rename(stage.paths.home / "elsewhere.db")
    stage.ledger.close()

    answer = peer.ask("GET", "/jobs")

    assert answer.status == 500
    assert answer.error["code"] == "internal"
    assert "sqlite" not in answer.body.decode().lower()
    del submit_body


def test_waiting_ends_when_the_job_does(stage: Any, peer: Any, submit: Submit) -> None:
    number = submit(peer)
    answers = []
    waiter = threading.Thread(
        target=lambda: answers.append(stage.peer().ask("GET", f"/jobs/{number}/wait?timeout=30"))
    )
    waiter.start()

    run_to_end(stage, number)
    waiter.join()

    rest = {"reason": None, "error": None}
    assert answers[0].json == {"id": 1, "state": "succeeded", "ended": True, **rest}


def test_waiting_ends_when_the_time_is_up(peer: Any, submit: Submit) -> None:
    number = submit(peer)

    answer = peer.ask("GET", f"/jobs/{number}/wait?timeout=0.01")

    rest = {"reason": None, "error": None}
    assert answer.json == {"id": 1, "state": "queued", "ended": False, **rest}


@pytest.mark.parametrize("timeout", ["nan", "inf", "-1", "x"])
def test_a_senseless_timeout_is_refused(peer: Any, submit: Submit, timeout: str) -> None:
    submit(peer)

    assert peer.ask("GET", f"/jobs/1/wait?timeout={timeout}").status == 400


def test_a_job_is_held_released_reprioritised_cancelled_and_retried(
    peer: Any, submit: Submit
) -> None:
    submit(peer)

    states = [
        peer.ask("POST", f"/jobs/1/{verb}", body).json["state"]
        for verb, body in (
            ("hold", None),
            ("release", None),
            ("priority", {"level": "low"}),
            ("cancel", None),
            ("retry", None),
        )
    ]

    assert states == ["held", "queued", "queued", "cancelled", "queued"]
    assert peer.ask("GET", "/jobs/1").json["priority"] == "low"
    actions = [event["action"] for event in peer.ask("GET", "/jobs/1/events").json["events"]]
    assert actions[0] == "submitted"
    assert "cancel_requested" in actions


def test_an_impossible_change_is_a_conflict(peer: Any, submit: Submit) -> None:
    submit(peer)

    answer = peer.ask("POST", "/jobs/1/finish")

    assert answer.status == 409
    assert "queued" in answer.error["message"]


@pytest.mark.parametrize("body", [{}, {"level": 3}, {"level": "top"}, [1]])
def test_a_wrong_level_is_refused(peer: Any, submit: Submit, body: object) -> None:
    submit(peer)

    assert peer.ask("POST", "/jobs/1/priority", body).status == 400


def test_repeat_queues_the_recorded_spec_and_compares(
    stage: Any, peer: Any, submit: Submit
) -> None:
    first = submit(peer, spec={"steps": 7}, share=True)
    file = File(name="output.txt", kind="text", bytes=1, sha256="a" * 64)
    run_to_end(stage, first, files=(file,))

    second = peer.ask("POST", f"/jobs/{first}/repeat").json["id"]

    before = peer.ask("GET", f"/jobs/{second}").json
    assert before["spec"] == peer.ask("GET", f"/jobs/{first}").json["spec"]
    assert (before["repeats"], before["identical"], before["share"]) == (first, None, True)
    run_to_end(stage, second, files=(file,))
    assert peer.ask("GET", f"/jobs/{second}").json["identical"] is True
    third = peer.ask("POST", f"/jobs/{first}/repeat").json["id"]
    run_to_end(stage, third)
    assert peer.ask("GET", f"/jobs/{third}").json["identical"] is False


def test_an_after_job_that_has_failed_is_refused(stage: Any, peer: Any, submit: Submit) -> None:
    first = submit(peer)
    run_to_end(stage, first, state=AttemptState.FAILED, reason="broke")

    answer = peer.ask("POST", "/jobs", {"kind": "noop", "spec": {}, "after": [first]})

    assert answer.status == 422
    assert answer.error["field"] == "after"
    assert f"job {first} has already failed" in answer.error["message"]


def test_an_unknown_model_names_roots_and_near_matches(stage: Any, peer: Any) -> None:
    folder = stage.paths.models / "mistral"
    folder.mkdir()
    (folder / "model.safetensors").touch()

    answer = peer.ask(
        "POST", "/jobs", {"kind": "infer", "spec": {"model": "mistal", "prompt": "x"}}
    )

    assert answer.status == 422
    assert answer.error["field"] == "model"
    assert "did you mean mistral?" in answer.error["message"]
    assert str(stage.paths.models) in answer.error["message"]


def test_a_linked_model_outside_the_roots_says_what_to_do(
    stage: Any, peer: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.gguf").touch()
    (stage.paths.models / "org").mkdir()
    (stage.paths.models / "org" / "mine").symlink_to(tmp_path)

    answer = peer.ask(
        "POST", "/jobs", {"kind": "infer", "spec": {"model": "org/mine", "prompt": "x"}}
    )

    assert answer.status == 422
    assert answer.error["field"] == "model"
    assert "leaves the model root" in answer.error["message"]
    assert "model_roots" in answer.error["remedy"]


def test_the_demo_model_is_fetched_first(peer: Any) -> None:
    answer = peer.ask(
        "POST", "/jobs", {"kind": "infer", "spec": {"model": "smollm2", "prompt": "x"}}
    )

    assert answer.json["state"] == "waiting"
    assert answer.json["reason"] == "waits for the download of smollm2"
    (model,) = peer.ask("GET", "/models").json["models"]
    assert (model["name"], model["state"]) == ("smollm2", "downloading")


def test_metrics_come_in_order_and_from_where_one_left_off(
    stage: Any, peer: Any, submit: Submit
) -> None:
    submit(peer)
    with stage.ledger.writing() as session:
        claim = attempts.claim(session, 1, worker="w", device=None, now=1.0)
        assert claim is not None
        rows = [(1, "train_loss", 3.0, 1.0), (2, "train_loss", 2.0, 2.0)]
        attempts.report_metrics(session, claim.fence, rows)

    first, second = peer.ask("GET", "/jobs/1/metrics").json["metrics"]

    assert (first["value"], second["value"], second["attempt"]) == (3.0, 2.0, 1)
    assert peer.ask("GET", f"/jobs/1/metrics?after={first['id']}").json["metrics"] == [second]
    assert peer.ask("GET", "/jobs/1").json["metrics"] == {"train_loss": 2.0}


def test_status_schema_usage_and_drain(stage: Any, peer: Any, submit: Submit) -> None:
    run_to_end(stage, submit(peer), gpu_seconds=5.0)

    status = peer.ask("GET", "/status").json

    assert status["jobs"]["succeeded"] == 1
    assert status["home"] == str(stage.paths.home)
    assert set(status) == {
        *("version", "pid", "home", "started_at", "revision", "draining", "me", "redis"),
        *("worker", "engine", "jobs"),
    }
    assert "noop" in peer.ask("GET", "/schema").json["kinds"]
    (user,) = peer.ask("GET", "/usage").json["users"]
    assert (user["jobs"], user["gpu_seconds"], user["share"]) == (1, 5.0, 1.0)
    assert peer.ask("POST", "/drain").json == {"draining": True}
    assert peer.ask("GET", "/status").json["draining"] is True
    assert peer.ask("POST", "/resume").json == {"draining": False}
