"""What a user may see and do of another's; every test speaks as users of different uids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from daemon.ledger import attempts
from daemon.ledger.attempts import Ending
from daemon.ledger.states import AttemptState
from tests.unit.language_folders import write_gguf

Submit = Callable[..., int]
NOBODY = 65_534


def fail(stage: Any, number: int) -> None:
    with stage.ledger.writing() as session:
        claim = attempts.claim(session, number, worker="w", device=None, now=1.0)
        assert claim is not None
        error = {"code": "x", "message": "row 3: secret", "field": None, "remedy": None}
        ending = Ending(state=AttemptState.FAILED, reason="row 3: secret", error=error)
        attempts.end(session, claim.fence, ending, now=2.0)


def test_the_user_is_the_peers_uid_whatever_the_headers_say(stranger: Any) -> None:
    forged = {
        "X-Forwarded-For": "0",
        "X-Forwarded-User": "root",
        "Forwarded": "for=root",
        "Remote-User": "root",
    }

    me = stranger.ask("GET", "/status", headers=forged).json["me"]

    assert me["uid"] == NOBODY
    assert me["admin"] is False


def test_everyone_sees_lines_but_not_what_is_in_a_job(
    stage: Any, peer: Any, stranger: Any, submit: Submit
) -> None:
    number = submit(peer, name="plan")
    fail(stage, number)

    (line,) = stranger.ask("GET", "/jobs").json["jobs"]

    assert (line["name"], line["state"]) == ("plan", "failed")
    assert (line["mine"], line["readable"], line["error"], line["reason"]) == (
        *(False, False),
        *(None, None),
    )
    assert "secret" in str(peer.ask("GET", "/jobs").json)
    assert stranger.ask("GET", f"/jobs/{number}/wait?timeout=0").json["error"] is None


@pytest.mark.parametrize("part", ["", "/metrics", "/events", "/log", "/text", "/artifacts"])
def test_the_inside_of_a_job_is_its_owners(
    peer: Any, stranger: Any, other: Any, submit: Submit, part: str
) -> None:
    number = submit(stranger)

    assert peer.ask("GET", f"/jobs/{number}{part}").status < 400
    refused = other.ask("GET", f"/jobs/{number}{part}")

    assert refused.status == 403
    assert refused.error["code"] == "forbidden"
    assert stranger.ask("GET", f"/jobs/{number}{part}").status < 400


def test_a_shared_job_shows_all_but_its_spec(
    stage: Any, stranger: Any, other: Any, submit: Submit
) -> None:
    number = submit(stranger, share=True)
    stage.paths.job(number).mkdir()
    stage.paths.log(number).write_text("Iter 1\n")

    assert other.ask("GET", f"/jobs/{number}/log").body == b"Iter 1\n"
    assert other.ask("GET", f"/jobs/{number}").json["spec"] == {}
    assert stranger.ask("GET", f"/jobs/{number}").json["spec"] != {}


@pytest.mark.parametrize("verb", ["cancel", "finish", "hold", "release", "retry", "repeat"])
def test_only_owner_and_admin_change_a_job(
    stranger: Any, other: Any, submit: Submit, verb: str
) -> None:
    number = submit(stranger, share=True)

    assert other.ask("POST", f"/jobs/{number}/{verb}").status == 403
    low = other.ask("POST", f"/jobs/{number}/priority", {"level": "low"})
    assert low.status == 403


def test_an_admin_of_the_configuration_may_change_others_jobs(
    stage: Any, stranger: Any, submit: Submit
) -> None:
    admin = stage.peer(4321)
    number = submit(stranger)

    assert admin.ask("GET", "/status").json["me"]["admin"] is True
    assert admin.ask("POST", f"/jobs/{number}/cancel").json["state"] == "cancelled"
    assert "uid-4321" in admin.ask("GET", f"/jobs/{number}").json["reason"]


def test_high_priority_needs_an_admin(stranger: Any, peer: Any, submit: Submit) -> None:
    high = {"kind": "noop", "spec": {}, "priority": "high"}

    refused = stranger.ask("POST", "/jobs", high)

    assert refused.status == 403
    assert refused.error["remedy"]
    number = submit(stranger)
    raised = stranger.ask("POST", f"/jobs/{number}/priority", {"level": "high"})
    assert raised.status == 403
    assert peer.ask("POST", "/jobs", high).status == 201


@pytest.mark.parametrize("path", ["/drain", "/resume", "/shutdown"])
def test_the_whole_is_for_admins(stranger: Any, path: str) -> None:
    assert stranger.ask("POST", path).status == 403


def test_an_upload_of_another_user_cannot_be_seen_or_cited(
    stage: Any, stranger: Any, other: Any
) -> None:
    from hashlib import sha256

    content = b'{"prompt": "x"}\n'
    digest = sha256(content).hexdigest()
    assert stranger.ask("PUT", f"/blobs/{digest}", content).status == 201
    write_gguf(stage.paths.models / "m.gguf")
    cited = {"model": "m", "prompts": {"name": "p.jsonl", "sha256": digest}}

    assert other.ask("HEAD", f"/blobs/{digest}").status == 404
    refused = other.ask("POST", "/jobs", {"kind": "infer", "spec": cited})

    assert refused.status == 422
    assert refused.error["field"] == "prompts"
    assert "upload" in refused.error["message"]
    assert stranger.ask("HEAD", f"/blobs/{digest}").status == 200
    accepted = stranger.ask("POST", "/jobs", {"kind": "infer", "spec": cited})
    assert accepted.status == 201, accepted.body
