"""Whose token a download gets: only that of somebody whose job waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemon.ledger import attempts
from daemon.ledger.attempts import Ending
from daemon.ledger.states import AttemptState

Submit = Callable[..., int]
MODEL = "org/name"


def ask(peer: Any, path: str, token: str, body: object = None) -> Any:
    return peer.ask("POST", path, body, headers={"studioq-hub-token": token})


def request(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return {"kind": "infer", "spec": {"model": model, "prompt": "x"}} | fields


def tokens(stage: Any) -> dict[str, tuple[int, str]]:
    return dict(stage.service.downloads._tokens)


def test_another_users_token_is_not_replaced(stage: Any, stranger: Any, other: Any) -> None:
    assert ask(stranger, "/jobs", "mine", request()).status == 201
    assert ask(other, "/jobs", "theirs", request()).status == 201
    assert tokens(stage) == {MODEL: (stranger.uid, "mine")}

    assert ask(stranger, "/jobs", "newer", request()).status == 201
    assert tokens(stage) == {MODEL: (stranger.uid, "newer")}


def test_who_may_not_change_a_job_leaves_no_token(stage: Any, stranger: Any, other: Any) -> None:
    number = stranger.ask("POST", "/jobs", request()).json["id"]
    assert stranger.ask("POST", f"/jobs/{number}/cancel").status == 200

    assert ask(other, f"/jobs/{number}/retry", "theirs").status == 403
    assert tokens(stage) == {}

    assert ask(stranger, f"/jobs/{number}/retry", "mine").status == 200
    assert tokens(stage) == {MODEL: (stranger.uid, "mine")}


def test_a_refused_retry_leaves_no_token(stage: Any, peer: Any) -> None:
    number = peer.ask("POST", "/jobs", request()).json["id"]

    assert ask(peer, f"/jobs/{number}/retry", "mine").status == 409
    assert tokens(stage) == {}


def test_a_retry_that_needs_no_download_leaves_no_token(
    stage: Any, peer: Any, submit: Submit
) -> None:
    number = submit(peer)
    with stage.ledger.writing() as session:
        claim = attempts.claim(session, number, worker="w", device=None, now=1.0)
        assert claim is not None
        attempts.end(session, claim.fence, Ending(state=AttemptState.FAILED), now=2.0)

    assert ask(peer, f"/jobs/{number}/retry", "mine").status == 200
    assert tokens(stage) == {}


def test_a_token_is_forgotten_with_the_last_job_that_waits(stage: Any, peer: Any) -> None:
    downloads = stage.service.downloads
    number = ask(peer, "/jobs", "mine", request()).json["id"]
    downloads._forget_unwanted()
    assert list(tokens(stage)) == [MODEL]

    assert peer.ask("POST", f"/jobs/{number}/cancel").status == 200
    downloads._forget_unwanted()

    assert tokens(stage) == {}
