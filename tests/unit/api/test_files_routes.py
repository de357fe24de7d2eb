from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest

from daemon.ledger import attempts
from daemon.ledger.attempts import Ending, File
from daemon.ledger.states import AttemptState
from tests.unit.language_folders import write_gguf

Submit = Callable[..., int]


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def parts_left(stage: Any) -> list[Any]:
    return list(stage.paths.blobs.glob("*.part"))


def test_a_file_is_kept_under_its_hash(stage: Any, peer: Any) -> None:
    content = bytes(range(256)) * 3000
    digest = digest_of(content)
    assert peer.ask("HEAD", f"/blobs/{digest}").status == 404

    answer = peer.ask("PUT", f"/blobs/{digest}", content)

    assert (answer.status, answer.json) == (201, {"sha256": digest, "bytes": len(content)})
    assert stage.paths.blob(digest).read_bytes() == content
    assert peer.ask("HEAD", f"/blobs/{digest}").status == 200
    assert peer.ask("PUT", f"/blobs/{digest}", content).status == 201
    assert parts_left(stage) == []


def test_content_of_another_hash_is_refused_and_forgotten(stage: Any, peer: Any) -> None:
    answer = peer.ask("PUT", f"/blobs/{'0' * 64}", b"something")

    assert answer.status == 422
    assert answer.error["code"] == "hash_mismatch"
    assert peer.ask("HEAD", f"/blobs/{'0' * 64}").status == 404
    assert parts_left(stage) == []


def test_an_upload_that_breaks_off_leaves_nothing(stage: Any, peer: Any) -> None:
    digest = digest_of(b"x" * 1000)
    broken = stage.peer()
    broken._connect()
    head = f"PUT /blobs/{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    broken.connection.sock.sendall(head.encode() + b"x" * 10)
    while not parts_left(stage):
        assert peer.ask("GET", "/status").status == 200

    broken.close()

    while parts_left(stage):
        assert peer.ask("GET", "/status").status == 200
    assert peer.ask("HEAD", f"/blobs/{digest}").status == 404


@pytest.mark.parametrize("name", ["x", "A" * 64, "0" * 63, "..%2f..%2fetc", "0" * 65])
def test_a_name_that_is_no_hash_is_refused(peer: Any, name: str) -> None:
    assert peer.ask("PUT", f"/blobs/{name}", b"x").status in {400, 404}


def test_a_file_that_is_too_large_is_refused(stage: Any, peer: Any) -> None:
    content = b"x" * 1_000_001

    answer = peer.ask("PUT", f"/blobs/{digest_of(content)}", content)

    assert answer.status == 413
    assert "1,000,000" in answer.error["message"]


def test_a_chunked_upload_that_grows_too_large_is_refused(stage: Any, peer: Any) -> None:
    pieces = iter([b"x" * 400_000] * 4)
    peer._connect()
    with suppress(BrokenPipeError):  # it is answered before it has been read to its end
        peer.connection.request("PUT", f"/blobs/{'0' * 64}", body=pieces, encode_chunked=True)

    assert peer.connection.getresponse().status == 413
    assert parts_left(stage) == []


def test_unused_uploads_of_one_user_are_bounded(peer: Any) -> None:
    first, second = b"a" * 600_000, b"b" * 600_000
    assert peer.ask("PUT", f"/blobs/{digest_of(first)}", first).status == 201

    answer = peer.ask("PUT", f"/blobs/{digest_of(second)}", second)

    assert answer.status == 413
    assert "no job uses" in answer.error["message"]


def test_unused_uploads_count_for_chunked_ones_too(stage: Any, peer: Any) -> None:
    first = b"a" * 600_000
    assert peer.ask("PUT", f"/blobs/{digest_of(first)}", first).status == 201
    pieces = iter([b"b" * 100_000] * 6)
    with suppress(BrokenPipeError):  # it is answered before it has been read to its end
        peer.connection.request("PUT", f"/blobs/{'0' * 64}", body=pieces, encode_chunked=True)

    answer = peer.connection.getresponse()
    assert answer.status == 413
    assert b"no job uses" in answer.read()
    assert parts_left(stage) == []


def write_log(stage: Any, number: int, text: str) -> None:
    stage.paths.job(number).mkdir(exist_ok=True)
    with stage.paths.log(number).open("a") as log:
        log.write(text)


def test_a_log_is_read_by_parts(stage: Any, peer: Any, submit: Submit) -> None:
    submit(peer)
    write_log(stage, 1, "0123456789")

    whole = peer.ask("GET", "/jobs/1/log")
    part = peer.ask("GET", "/jobs/1/log", headers={"Range": "bytes=4-6"})
    rest = peer.ask("GET", "/jobs/1/log", headers={"Range": "bytes=8-"})
    last = peer.ask("GET", "/jobs/1/log", headers={"Range": "bytes=-3"})

    assert (whole.status, whole.body) == (200, b"0123456789")
    assert whole.headers["content-type"].startswith("text/plain")
    assert (part.status, part.body) == (206, b"456")
    assert part.headers["content-range"] == "bytes 4-6/10"
    assert (rest.body, last.body) == (b"89", b"789")
    assert rest.headers["studioq-job-state"] == "queued"


def test_the_end_of_a_log_is_empty_and_behind_it_is_an_error(
    stage: Any, peer: Any, submit: Submit
) -> None:
    submit(peer)
    assert peer.ask("GET", "/jobs/1/log", headers={"Range": "bytes=0-"}).status == 204
    assert peer.ask("GET", "/jobs/1/text").status == 204
    write_log(stage, 1, "abc")

    at_end = peer.ask("GET", "/jobs/1/log", headers={"Range": "bytes=3-"})
    behind = peer.ask("GET", "/jobs/1/log", headers={"Range": "bytes=4-"})

    assert (at_end.status, at_end.headers["studioq-job-state"]) == (204, "queued")
    assert behind.status == 416
    assert behind.headers["content-range"] == "bytes */3"
    assert behind.headers["studioq-job-state"] == "queued"


def test_a_follower_gets_bytes_when_they_come(stage: Any, peer: Any, submit: Submit) -> None:
    submit(peer)
    write_log(stage, 1, "one\n")
    answers = []
    follower = threading.Thread(
        target=lambda: answers.append(
            stage.peer().ask("GET", "/jobs/1/log?wait=30", headers={"Range": "bytes=4-"})
        )
    )
    follower.start()

    write_log(stage, 1, "two\n")
    follower.join()

    assert answers[0].body == b"two\n"


def test_a_follower_is_let_go_when_the_job_ends(stage: Any, peer: Any, submit: Submit) -> None:
    submit(peer)
    answers = []
    follower = threading.Thread(
        target=lambda: answers.append(
            stage.peer().ask("GET", "/jobs/1/text?wait=30", headers={"Range": "bytes=0-"})
        )
    )
    follower.start()

    peer.ask("POST", "/jobs/1/cancel")
    follower.join()

    assert answers[0].status == 204
    assert answers[0].headers["studioq-job-state"] == "cancelled"


@pytest.fixture
def artifact(stage: Any, peer: Any, submit: Submit) -> bytes:
    """A job whose attempt has left ``samples/a b.txt``; its content."""
    submit(peer)
    content = b"hello, world"
    with stage.ledger.writing() as session:
        claim = attempts.claim(session, 1, worker="w", device=None, now=1.0)
        assert claim is not None
        name = "samples/a b.txt"
        path = stage.paths.attempt(1, claim.number) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        file = File(name=name, kind="text", bytes=len(content), sha256=digest_of(content))
        ending = Ending(state=AttemptState.SUCCEEDED, files=(file,))
        attempts.end(session, claim.fence, ending, now=2.0)
    return content


def test_an_artifact_is_fetched_whole_and_by_parts(artifact: bytes, peer: Any) -> None:
    (listed,) = peer.ask("GET", "/jobs/1/artifacts").json["artifacts"]
    whole = peer.ask("GET", "/jobs/1/artifacts/samples/a%20b.txt")
    part = peer.ask("GET", "/jobs/1/artifacts/samples/a%20b.txt", headers={"Range": "bytes=7-"})

    assert (listed["name"], listed["attempt"]) == ("samples/a b.txt", 1)
    assert whole.body == artifact
    assert whole.headers["etag"] == f'"{listed["sha256"]}"'
    assert int(whole.headers["content-length"]) == len(artifact)
    assert (part.status, part.body) == (206, b"world")
    same = {"If-None-Match": whole.headers["etag"]}
    assert peer.ask("GET", "/jobs/1/artifacts/samples/a%20b.txt", headers=same).status == 304


@pytest.mark.parametrize(
    "name", ["none.txt", "../../ledger.db", "..%2f..%2fledger.db", "%00", "samples", "/etc/passwd"]
)
def test_only_recorded_names_are_artifacts(artifact: bytes, peer: Any, name: str) -> None:
    answer = peer.ask("GET", f"/jobs/1/artifacts/{name}")

    assert answer.status == 404
    assert answer.error["code"] in {"not_found", "usage"}


def test_an_artifact_that_became_a_link_is_not_followed(
    stage: Any, artifact: bytes, peer: Any
) -> None:
    path = stage.paths.attempt(1, 1) / "samples" / "a b.txt"
    path.unlink()
    path.symlink_to(stage.ledger.path)

    assert peer.ask("GET", "/jobs/1/artifacts/samples/a%20b.txt").status == 404


def test_a_bad_row_is_refused_with_its_file_and_line(stage: Any, peer: Any) -> None:
    content = b'{"text": "good"}\n{"text": 3}\n{"text": "good"}\n'
    digest = digest_of(content)
    peer.ask("PUT", f"/blobs/{digest}", content)
    write_gguf(stage.paths.models / "m.gguf")
    spec = {"model": "m", "data": {"rows": {"name": "mine.jsonl", "sha256": digest}}}

    answer = peer.ask("POST", "/jobs", {"kind": "train", "spec": spec})

    assert answer.status == 422
    assert answer.error["field"] == "data.rows"
    assert "mine.jsonl:2" in answer.error["message"]
    assert peer.ask("GET", "/jobs").json["total"] == 0
