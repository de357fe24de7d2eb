"""What attempts report reaches the ledger and the job's files, once, and under their fence."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from daemon.ledger import attempts, details
from daemon.ledger.attempts import Claim, Ending
from daemon.ledger.states import AttemptState, JobState
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Artifact, Attempt, Checkpoint, Job, JobEvent, Metric
from daemon.locate import Paths
from workers import events
from workers.attempts import Cause, LiveAttempt
from workers.events import Event
from workers.protocol import Happened
from workers.recorder import Recorder

NOW = 1_000_000.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(ledger: Ledger, paths: Paths, clock: Clock) -> Iterator[Recorder]:
    made = Recorder(ledger, paths, clock=clock, now=lambda: NOW)
    yield made
    made.close()


@pytest.fixture
def begun(recorder: Recorder, attempt: LiveAttempt) -> LiveAttempt:
    recorder.begin(attempt, None)
    return attempt


def report(recorder: Recorder, attempt: LiveAttempt, *reported: Event) -> None:
    for event in reported:
        recorder.take(attempt, Happened(attempt=attempt.fence, at=NOW, event=event))


def finish(
    recorder: Recorder, attempt: LiveAttempt, state: AttemptState = AttemptState.SUCCEEDED
) -> None:
    attempt.ending = Ending(state=state, gpu_seconds=2.0)
    while not recorder.end(attempt):
        pass


def job(ledger: Ledger, attempt: LiveAttempt) -> Job:
    with ledger.reading() as session:
        return session.get_one(Job, attempt.claim.job_id)


def count(ledger: Ledger, table: type) -> int:
    with ledger.reading() as session:
        return int(session.scalar(select(func.count()).select_from(table)) or 0)


def write(attempt: LiveAttempt, name: str, content: bytes = b"x") -> str:
    path = attempt.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return name


def test_the_first_event_is_written_at_once_and_the_next_in_time(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, clock: Clock
) -> None:
    report(recorder, begun, events.Progress(done=1, total=9))
    recorder.flush([begun])
    assert job(ledger, begun).progress_done == 1
    report(recorder, begun, events.Progress(done=2, total=9))
    recorder.flush([begun])
    assert job(ledger, begun).progress_done == 1
    assert recorder.due_in() == pytest.approx(0.25)
    clock.seconds = 0.25
    recorder.flush([begun])
    assert job(ledger, begun).progress_done == 2


def test_metrics_and_facts_are_recorded(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    report(
        recorder,
        begun,
        events.Metric(step=1, values={"loss": 2.0, "speed": 3.0}),
        events.Facts(facts={"chip": "M2"}),
    )
    recorder.flush([begun])
    assert count(ledger, Metric) == 2
    with ledger.reading() as session:
        assert session.get_one(Attempt, begun.fence).facts == {"chip": "M2"}


def test_log_and_text_are_appended(recorder: Recorder, begun: LiveAttempt, paths: Paths) -> None:
    report(recorder, begun, events.Log(text="a\nb"), events.Text(text="x"), events.Text(text="é"))
    recorder.flush([begun])
    report(recorder, begun, events.Log(text="c"))
    recorder.flush([begun])
    assert paths.log(begun.claim.job_id).read_text(encoding="utf-8") == "a\nb\nc\n"
    assert paths.text(begun.claim.job_id).read_text(encoding="utf-8") == "xé"


def test_artifacts_are_published_by_the_ending(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    report(recorder, begun, events.Artifact(path=write(begun, "out/a.txt"), kind="text"))
    recorder.flush([begun])
    assert count(ledger, Artifact) == 0
    finish(recorder, begun)
    with ledger.reading() as session:
        artifact = session.scalars(select(Artifact)).one()
    assert artifact.name == "out/a.txt"
    assert artifact.sha256 == hashlib.sha256(b"x").hexdigest()
    assert job(ledger, begun).state == JobState.SUCCEEDED


def test_an_artifact_that_is_written_twice_has_its_last_content(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    for content in (b"old", b"newer"):
        report(recorder, begun, events.Artifact(path=write(begun, "a", content), kind="plot"))
    finish(recorder, begun)
    with ledger.reading() as session:
        assert session.scalars(select(Artifact.bytes)).all() == [5]


def test_a_checkpoint_is_recorded_while_the_job_runs(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    name = write(begun, "c/5/adapters.safetensors")
    report(recorder, begun, events.Checkpoint(step=5, folder="c/5", files=(name,)))
    while count(ledger, Checkpoint) == 0:
        recorder.flush([begun])
    assert count(ledger, Artifact) == 1
    report(recorder, begun, events.Artifact(path=name, kind="adapter"))
    finish(recorder, begun)
    assert count(ledger, Artifact) == 1


def shown(ledger: Ledger, attempt: LiveAttempt) -> list[tuple[str, str, int]]:
    """Return name, kind and attempt of each artifact that the job is shown with."""
    with ledger.reading() as session:
        found = details.artifacts(session, attempt.claim.job_id)
    return [(file["name"], file["kind"], file["attempt"]) for file in found]


def publish(
    recorder: Recorder, attempt: LiveAttempt, ledger: Ledger, step: int, names: list[str]
) -> None:
    """Report a checkpoint with pictures, and wait until it is in the ledger."""
    before = count(ledger, Checkpoint)
    files = tuple(write(attempt, name, f"{attempt.fence}".encode()) for name in names)
    folder = f"done-{step:05d}"
    report(
        recorder, attempt, events.Checkpoint(step=step, folder=folder, files=files, kind="image")
    )
    while count(ledger, Checkpoint) == before:
        recorder.flush([attempt])


def test_pictures_are_published_while_the_job_runs(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    publish(recorder, begun, ledger, 2, ["image-0000.png", "image-0001.png"])
    assert shown(ledger, begun) == [("image-0000.png", "image", 1), ("image-0001.png", "image", 1)]
    report(recorder, begun, events.Artifact(path="image-0001.png", kind="image"))
    report(recorder, begun, events.Artifact(path=write(begun, "sheet.png"), kind="image"))
    finish(recorder, begun)
    assert [name for name, _, _ in shown(ledger, begun)][2:] == ["sheet.png"]
    assert job(ledger, begun).state == JobState.SUCCEEDED


def test_pictures_that_a_later_attempt_publishes_again_take_the_place_of_the_first(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, paths: Paths
) -> None:
    publish(recorder, begun, ledger, 2, ["image-0000.png", "image-0001.png"])
    finish(recorder, begun, AttemptState.INTERRUPTED)
    claimed = claim_again(ledger, begun)
    folder = paths.attempt(claimed.job_id, claimed.number)
    folder.mkdir()
    again = LiveAttempt(claim=claimed, folder=folder, started=0.0)
    recorder.begin(again, 2)
    assert [attempt for _, _, attempt in shown(ledger, again)] == [1, 1]

    publish(recorder, again, ledger, 3, ["image-0000.png", "image-0001.png", "image-0002.png"])

    assert [attempt for _, _, attempt in shown(ledger, again)] == [2, 2, 2]
    with ledger.reading() as session:
        found = details.find_artifact(session, claimed.job_id, "image-0000.png")
    assert (found["attempt"], found["bytes"]) == (2, len(str(again.fence)))
    assert found["sha256"] == hashlib.sha256(str(again.fence).encode()).hexdigest()


def test_a_checkpoint_that_comes_with_the_ending_is_recorded(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    name = write(begun, "c/5/state")
    report(recorder, begun, events.Checkpoint(step=5, folder="c/5", files=(name,)))
    finish(recorder, begun, AttemptState.STOPPED)
    assert (count(ledger, Checkpoint), count(ledger, Artifact)) == (1, 1)
    assert job(ledger, begun).state == JobState.QUEUED


@pytest.mark.parametrize("name", ["../log.txt", "/etc/passwd", "missing", "link", "", "folder"])
def test_a_file_that_is_not_the_attempts_own_fails_the_job(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, name: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (begun.folder / "link").symlink_to(tmp_path / "secret")
    (begun.folder / "folder").mkdir()
    report(recorder, begun, events.Artifact(path=name, kind="text"))
    finish(recorder, begun)
    error = job(ledger, begun).error
    assert error is not None
    assert "cannot be published" in error["message"]
    assert count(ledger, Artifact) == 0


def test_a_checkpoint_with_a_missing_file_fails_the_job(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    report(recorder, begun, events.Checkpoint(step=5, folder="c/5", files=("c/5/missing",)))
    finish(recorder, begun)
    assert job(ledger, begun).state == JobState.FAILED
    assert count(ledger, Checkpoint) == 0


def test_a_fenced_attempt_writes_nothing(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, paths: Paths
) -> None:
    with ledger.writing() as session:
        attempts.end(session, begun.fence, Ending(state=AttemptState.INTERRUPTED), now=NOW)
    before = count(ledger, JobEvent)
    report(recorder, begun, events.Progress(done=5, total=9))
    recorder.flush([begun])
    assert begun.cause is Cause.FENCED
    report(
        recorder,
        begun,
        events.Log(text="late"),
        events.Metric(step=1, values={"loss": 1.0}),
        events.Artifact(path=write(begun, "a"), kind="text"),
    )
    recorder.flush([begun])
    finish(recorder, begun)
    assert (count(ledger, Metric), count(ledger, Artifact)) == (0, 0)
    assert count(ledger, JobEvent) == before
    assert job(ledger, begun).progress_done == 0
    assert not paths.log(begun.claim.job_id).exists()


def test_a_fence_met_by_the_ending_changes_nothing(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    with ledger.writing() as session:
        attempts.end(session, begun.fence, Ending(state=AttemptState.INTERRUPTED), now=NOW)
    finish(recorder, begun)
    assert job(ledger, begun).state == JobState.QUEUED


def test_a_busy_ledger_is_tried_again(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, clock: Clock
) -> None:
    report(recorder, begun, events.Metric(step=1, values={"loss": 1.0}))
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    set_busy_timeout(ledger, 1)
    begun.ending = Ending(state=AttemptState.SUCCEEDED)
    assert not recorder.end(begun)
    other.execute("ROLLBACK")
    other.close()
    assert not recorder.end(begun)
    clock.seconds = 1.0
    assert recorder.end(begun)
    assert count(ledger, Metric) == 1
    assert job(ledger, begun).state == JobState.SUCCEEDED


def set_busy_timeout(ledger: Ledger, milliseconds: int) -> None:
    with ledger._writers.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute(f"PRAGMA busy_timeout = {milliseconds}")


def test_a_full_ledger_fails_the_job(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, clock: Clock
) -> None:
    with ledger._writers.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        (pages,) = raw.execute("PRAGMA page_count").fetchone()
        raw.execute(f"PRAGMA max_page_count = {pages}")
        big = {f"m{number}": 1.0 for number in range(20_000)}
        report(recorder, begun, events.Metric(step=1, values=big))
        connection.rollback()
    recorder.flush([begun])
    assert begun.error is not None
    assert begun.error.code == "disk_full"


def test_a_log_that_cannot_be_written_fails_the_job(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, paths: Paths
) -> None:
    paths.log(begun.claim.job_id).mkdir()
    report(recorder, begun, events.Log(text="a"))
    recorder.flush([begun])
    assert begun.error is not None
    finish(recorder, begun)
    assert job(ledger, begun).state == JobState.FAILED


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_under_the_log_fails_the_job(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, paths: Paths
) -> None:
    paths.log(begun.claim.job_id).symlink_to("/dev/full")
    report(recorder, begun, events.Log(text="a"))
    recorder.flush([begun])
    finish(recorder, begun)
    error = job(ledger, begun).error
    assert error is not None
    assert error["code"] == "disk_full"
    assert "log.txt" in error["message"]


def test_rows_that_the_ledger_refuses_fail_the_job(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger
) -> None:
    for _ in range(2):
        report(recorder, begun, events.Checkpoint(step=5, folder="c/5"))
    finish(recorder, begun)
    failed = job(ledger, begun)
    assert failed.state == JobState.FAILED
    assert failed.error is not None
    assert "cannot be recorded" in failed.error["message"]


def test_a_new_attempt_marks_the_log_and_starts_the_text_anew(
    recorder: Recorder, begun: LiveAttempt, ledger: Ledger, paths: Paths
) -> None:
    report(recorder, begun, events.Log(text="first"), events.Text(text="old"))
    finish(recorder, begun, AttemptState.INTERRUPTED)
    again = LiveAttempt(claim=claim_again(ledger, begun), folder=begun.folder, started=0.0)
    with paths.text(begun.claim.job_id).open(encoding="utf-8") as reader:
        recorder.begin(again, 100)
        assert reader.read() == "old"
    report(recorder, again, events.Text(text="new"))
    recorder.flush([again])
    log = paths.log(begun.claim.job_id).read_text(encoding="utf-8")
    assert log == "first\n— attempt 2, from step 100 —\n"
    assert paths.text(begun.claim.job_id).read_text(encoding="utf-8") == "new"


def claim_again(ledger: Ledger, attempt: LiveAttempt) -> Claim:
    with ledger.writing() as session:
        claimed = attempts.claim(session, attempt.claim.job_id, worker="w2", device="cpu", now=NOW)
    assert claimed is not None
    return claimed
