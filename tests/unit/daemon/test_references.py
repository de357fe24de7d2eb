"""What a submission may be built on, and how a refusal says what there is instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import references
from daemon.errors import SpecRefusedError
from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Ending, File
from daemon.ledger.jobs import NewJob
from daemon.ledger.migrate import open_ledger
from daemon.ledger.states import AttemptState
from daemon.ledger.store import Ledger
from daemon.ledger.users import ensure_user
from daemon.locate import Paths
from daemon.specs import parse_spec

Train = Callable[..., int]
ADAPTER = ("adapters.safetensors", "adapter_config.json")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(home=tmp_path, runtime=tmp_path / "run")


@pytest.fixture
def ledger(paths: Paths) -> Iterator[Ledger]:
    opened = open_ledger(paths.ledger)
    yield opened
    opened.close()


@pytest.fixture
def train(ledger: Ledger, paths: Paths) -> Train:
    """A train job of user 1 on model ``m`` with checkpoints; its end, or None: it waits."""

    def _train(state: AttemptState | None = None, steps: tuple[int, ...] = (), **new: Any) -> int:
        with ledger.writing() as session:
            ensure_user(session, uid=501, name="ann", now=1.0)
            values: dict[str, Any] = {
                "user_id": 1,
                "model": "m",
                "spec": {"iters": 100, "save_every": 10},
            } | new
            job = jobs.submit(session, NewJob(kind="train", **values), actor="ann", now=1.0)
            if state is None and not steps:
                return job.id
            claim = attempts.claim(session, job.id, worker="w", device=None, now=1.0)
            assert claim is not None
            folder = paths.attempt(job.id, claim.number)
            for step in steps:
                write_adapter(folder / f"checkpoints/{step}")
                attempts.add_checkpoint(
                    session,
                    claim.fence,
                    step=step,
                    folder=f"checkpoints/{step}",
                    files=(),
                    now=1.0,
                )
            if state is not None:
                write_adapter(folder)
                files = tuple(File(name=n, kind="adapter", bytes=1, sha256="0") for n in ADAPTER)
                attempts.end(session, claim.fence, Ending(state=state, files=files), now=2.0)
            return job.id

    return _train


def write_adapter(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ADAPTER:
        (folder / name).touch()


def check(ledger: Ledger, paths: Paths, adapter: str, *, user: int = 1, model: str = "m") -> Any:
    spec = parse_spec("infer", {"model": model, "prompt": "x", "adapter": adapter})
    with ledger.reading() as session:
        return references.check(session, paths, spec, user, admin=False)


def refused(ledger: Ledger, paths: Paths, adapter: str, **options: Any) -> SpecRefusedError:
    with pytest.raises(SpecRefusedError) as caught:
        check(ledger, paths, adapter, **options)
    assert caught.value.field == "adapter"
    assert adapter in caught.value.message
    return caught.value


def test_a_finished_adapter_is_used_at_once(ledger: Ledger, paths: Paths, train: Train) -> None:
    train(AttemptState.SUCCEEDED, steps=(50,))

    assert check(ledger, paths, "job:1") == []
    assert check(ledger, paths, "job:1@50") == []


def test_an_unfinished_one_is_waited_for(ledger: Ledger, paths: Paths, train: Train) -> None:
    train(steps=(10,))

    assert check(ledger, paths, "job:1") == [1]
    assert check(ledger, paths, "job:1@10") == []
    assert check(ledger, paths, "job:1@20") == [1]


def test_a_step_that_will_never_come_is_refused(ledger: Ledger, paths: Paths, train: Train) -> None:
    train()

    assert "ends at step 100" in refused(ledger, paths, "job:1@101").message


@pytest.mark.parametrize(
    ("step", "offered"), [(15, "@10 and job:1@20"), (7, "@10"), (97, "@90 and job:1@95")]
)
def test_a_step_between_two_checkpoints_is_refused(
    ledger: Ledger, paths: Paths, train: Train, step: int, offered: str
) -> None:
    train(spec={"iters": 95, "save_every": 10})

    error = refused(ledger, paths, f"job:1@{step}")

    assert f"job:1{offered}" in str(error.remedy)


def test_a_checkpoint_at_an_odd_step_is_used_once_it_is_there(
    ledger: Ledger, paths: Paths, train: Train
) -> None:
    train(spec={"iters": 95, "save_every": 10}, steps=(13,))

    assert check(ledger, paths, "job:1@13") == []
    assert check(ledger, paths, "job:1@95") == [1]


@pytest.mark.parametrize("state", [AttemptState.FAILED, AttemptState.OUT_OF_MEMORY])
def test_a_failed_job_offers_its_checkpoints(
    ledger: Ledger, paths: Paths, train: Train, state: AttemptState
) -> None:
    train(state, steps=(10, 20))

    error = refused(ledger, paths, "job:1")

    assert "job 1 failed" in error.message
    assert error.remedy is not None
    assert "job:1@20" in error.remedy
    assert check(ledger, paths, "job:1@20") == []
    assert "30" in refused(ledger, paths, "job:1@30").message


def test_an_adapter_of_another_model_names_both(ledger: Ledger, paths: Paths, train: Train) -> None:
    train(AttemptState.SUCCEEDED)

    message = refused(ledger, paths, "job:1", model="other").message

    assert "job 1 trains m" in message
    assert "other" in message


def test_another_users_adapter_needs_to_be_shared(
    ledger: Ledger, paths: Paths, train: Train
) -> None:
    train(AttemptState.SUCCEEDED)
    train(AttemptState.SUCCEEDED, share=True)

    assert "not shared" in refused(ledger, paths, "job:1", user=2).message
    assert check(ledger, paths, "job:2", user=2) == []


@pytest.mark.parametrize("adapter", ["job:9", "job:" + "9" * 30, "job:1@" + "9" * 30])
def test_a_job_that_is_not_there(ledger: Ledger, paths: Paths, train: Train, adapter: str) -> None:
    train(AttemptState.SUCCEEDED)

    refused(ledger, paths, adapter)


def test_only_a_training_has_an_adapter(ledger: Ledger, paths: Paths, train: Train) -> None:
    train()
    with ledger.writing() as session:
        new = NewJob(user_id=1, kind="noop", spec={})
        jobs.submit(session, new, actor="ann", now=1.0)

    assert "noop" in refused(ledger, paths, "job:2").message


@pytest.mark.parametrize("reference", ["job:1", "job:1@16"])
def test_the_checkpoints_of_pictures_are_no_adapters(
    ledger: Ledger, paths: Paths, reference: str
) -> None:
    with ledger.writing() as session:
        ensure_user(session, uid=501, name="ann", now=1.0)
        new = NewJob(user_id=1, kind="diffuse", model="m", spec={"prompt": "x"})
        number = jobs.submit(session, new, actor="ann", now=1.0).id
        claim = attempts.claim(session, number, worker="w", device=None, now=1.0)
        assert claim is not None
        file = File(name="image-0000.png", kind="image", bytes=1, sha256="0", step=16)
        attempts.add_checkpoint(
            session, claim.fence, step=16, folder="done-00016", files=(file,), now=1.0
        )

    error = refused(ledger, paths, reference)

    assert "job 1 is of kind diffuse; only a train job has an adapter" in error.message
    assert "studioq list --all --kind train" in (error.remedy or "")


def test_an_adapter_to_merge_is_looked_at_likewise(
    ledger: Ledger, paths: Paths, train: Train
) -> None:
    train(steps=(10,))

    def needed(fuse: str, model: str = "m") -> list[int]:
        spec = parse_spec("convert", {"model": model, "to": "new", "fuse": fuse})
        with ledger.reading() as session:
            return references.check(session, paths, spec, 1, admin=False)

    assert needed("job:1") == [1]
    assert needed("job:1@10") == []
    with pytest.raises(SpecRefusedError) as caught:
        needed("job:1", model="other")
    assert caught.value.field == "fuse"
    assert str(caught.value.remedy).startswith("convert m, or an adapter of other; ")
