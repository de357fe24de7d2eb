"""The studio of these tests does what a worker does."""

from __future__ import annotations

from daemon.ledger.states import AttemptState
from tests.unit.tui.conftest import Studio


def test_jobs_live_and_end(studio: Studio) -> None:
    first, second = studio.add(name="one"), studio.add(uid=4711, user="ben")
    studio.start(first)
    studio.progress(first, 2, 8, eta=30)
    studio.metric(first, 2, train_loss=1.5)
    studio.log(first, "hello\n")
    with studio.connect() as client:
        lines = {line["id"]: line for line in client.jobs()["jobs"]}
        assert lines[first]["state"] == "running"
        assert lines[first]["mine"]
        assert not lines[second]["mine"]
        assert client.read_log(first).data == b"hello\n"
        studio.end(first, AttemptState.SUCCEEDED, files={"a.txt": b"text"})
        assert [file["name"] for file in client.artifacts(first)] == ["a.txt"]
        assert client.job(first)["state"] == "succeeded"
