"""Interrupted diffusions go on behind the last picture and end with the same files."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import JobError
from tests.integration.diffuse.studio import SHEET, Job, Studio, alike, same
from workers.checkpoints import STATE, is_whole
from workers.diffusion.batching import picture_bytes
from workers.diffusion.load import load_diffusion_model
from workers.events import Artifact, Checkpoint, Progress, SafePoint, Stopped
from workers.kinds import Request
from workers.models import ModelCache

OPTIONS: dict[str, Any] = {"n_images": 5, "batch_size": 2, "sampler": "euler-a"}


def cut(job: Job, events: int) -> Job:
    """Run a job for so many events and end it as the engine's death or a cancellation does."""
    running = job.start()
    for _ in range(events):
        if next(running, None) is None:
            break
    running.close()  # type: ignore[attr-defined]
    return job


def asked(job: Job, request: Request, steps: int) -> Job:
    """Run a job to its end, asking for something when so many steps have been done."""
    for _ in job.start():
        if reached(job, steps):
            job.context.control.request = request
    return job


def cancelled(job: Job, when: Callable[[Job], bool]) -> Job:
    """Run a job and cancel it as the engine does, once ``when`` holds after an event."""
    control, running = job.context.control, job.start()
    for _ in running:
        if control.request is None and when(job):
            if not control.unpublished:
                running.close()  # type: ignore[attr-defined]
                break
            control.request = Request.CANCEL
    return job


def has_said(events: int, job: Job) -> bool:
    return len(job.events) >= events


def reached(job: Job, steps: int) -> bool:
    return any(done >= steps for done in job.steps)


def until_checkpoint(job: Job) -> Job:
    running = job.start()
    next(event for event in running if isinstance(event, Checkpoint))
    running.close()  # type: ignore[attr-defined]
    return job


@pytest.fixture(scope="module")
def whole(
    models_kept: ModelCache, models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Job:
    """The job, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    return Studio(folder, models_kept, models("one-block")).run(**OPTIONS)


def test_a_killed_job_goes_on_behind_its_checkpoint(studio: Studio, whole: Job) -> None:
    killed = until_checkpoint(studio.job(**OPTIONS))
    there = killed.of(Checkpoint)[0].step
    assert there == len(killed.published())
    resumed = studio.run(checkpoint=killed.checkpoint(), **OPTIONS)
    assert same(resumed, whole)
    assert f"{there} pictures were there already" in resumed.log
    assert resumed.steps == [steps for steps in whole.steps if steps > 3 * there]
    assert resumed.of(Progress)[0].done > 4 * there
    assert resumed.of(Progress)[-1].done == resumed.of(Progress)[-1].total == 20
    for name in killed.published():
        assert (resumed.folder / name).samefile(killed.folder / name)


def test_a_job_killed_anywhere_and_again_ends_with_the_same_files(
    studio: Studio, whole: Job
) -> None:
    chance, last = random.Random(3), None
    for _ in range(4):
        killed = cut(studio.job(checkpoint=last, **OPTIONS), chance.randrange(len(whole.events)))
        last = killed.checkpoint() or last
    assert same(studio.run(checkpoint=last, **OPTIONS), whole)


def test_a_checkpoint_stands_without_the_attempt_before_it(studio: Studio, whole: Job) -> None:
    first = until_checkpoint(studio.job(**OPTIONS))
    second = until_checkpoint(studio.job(checkpoint=first.checkpoint(), **OPTIONS))
    shutil.rmtree(first.folder)
    assert second.checkpoint() is not None
    assert same(studio.run(checkpoint=second.checkpoint(), **OPTIONS), whole)


def test_a_job_goes_on_in_the_batches_that_it_began_with(studio: Studio, whole: Job) -> None:
    killed = until_checkpoint(studio.job(**OPTIONS))
    resumed = studio.run(checkpoint=killed.checkpoint(), **OPTIONS | {"batch_size": "auto"})
    assert resumed.facts["batch_size"] == 2
    assert [each.tobytes() for each in resumed.pictures()] == [
        each.tobytes() for each in whole.pictures()
    ]


def test_pictures_of_an_earlier_attempt_are_no_new_checkpoint(studio: Studio) -> None:
    killed = until_checkpoint(studio.job(**OPTIONS))
    there = killed.of(Checkpoint)[0].step
    again = studio.job(checkpoint=killed.checkpoint(), **OPTIONS)
    running = again.start()
    next(event for event in running if reached(again, 3 * there + 4))
    running.close()  # type: ignore[attr-defined]
    assert not again.of(Checkpoint)


def test_a_job_that_goes_on_with_less_memory_still_writes_checkpoints(studio: Studio) -> None:
    longer = OPTIONS | {"n_images": 9, "batch_size": 3}
    killed = until_checkpoint(studio.job(**longer))
    there = killed.of(Checkpoint)[0].step
    model = load_diffusion_model(studio.model)
    room = model.bytes + 3 * picture_bytes(model, (16, 16), guided=True)
    small = Studio(
        studio.folder / "small", ModelCache(2**30, time.monotonic, limit_bytes=room), studio.model
    )
    small.folder.mkdir()
    resumed = small.run(checkpoint=killed.checkpoint(), **longer)
    steps = [event.step for event in resumed.of(Checkpoint)]
    assert resumed.facts["batch_size"] == 2
    assert len(steps) > 1
    assert {(step - there) % 2 for step in steps} == {0}
    assert alike(resumed.pictures(), studio.run(**longer).pictures())


@pytest.mark.parametrize("steps", [4, 6, 10, 14])
def test_a_stopped_job_goes_on_where_it_was(studio: Studio, whole: Job, steps: int) -> None:
    stopped = asked(studio.job(**OPTIONS), Request.STOP, steps)
    if not isinstance(stopped.events[-1], Stopped):
        assert same(stopped, whole)
        return
    checkpoint = stopped.checkpoint()
    assert checkpoint is None or is_whole(checkpoint)
    assert not stopped.of(Artifact)
    assert same(studio.run(checkpoint=checkpoint, **OPTIONS), whole)


def test_a_job_stopped_in_its_first_batch_has_nothing_to_go_on_from(studio: Studio) -> None:
    stopped = asked(studio.job(**OPTIONS), Request.STOP, 2)
    assert stopped.events[-1] == Stopped()
    assert stopped.steps == [2]
    assert stopped.published() == stopped.names() == []


def test_stop_keeps_the_batch_that_was_done(studio: Studio) -> None:
    stopped = asked(studio.job(**OPTIONS), Request.STOP, 6)
    assert stopped.events[-1] == Stopped()
    assert stopped.published() == ["image-0000.png", "image-0001.png"]


def test_a_job_stopped_after_its_last_step_is_done(studio: Studio, whole: Job) -> None:
    assert same(asked(studio.job(**OPTIONS), Request.STOP, 15), whole)


def test_finish_ends_with_what_there_is(studio: Studio, whole: Job) -> None:
    ended = asked(studio.job(**OPTIONS), Request.FINISH, 8)
    assert sorted(ended.published()) == [SHEET, "image-0000.png", "image-0001.png"]
    assert ended.names() == [SHEET, "image-0000.png", "image-0001.png"]
    assert "Finished as asked, after 2 of 5 pictures" in ended.log
    assert ended.files()["image-0001.png"] == whole.files()["image-0001.png"]


def test_finish_before_the_first_picture_leaves_none(studio: Studio) -> None:
    ended = asked(studio.job(**OPTIONS), Request.FINISH, 1)
    assert ended.published() == ended.names() == []
    assert "Finished as asked, after 0 of 5 pictures" in ended.log


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_no_picture_that_has_all_its_steps_is_lost_by_a_cancellation(
    studio: Studio, steps: int, batch: int
) -> None:
    options: dict[str, Any] = {"n_images": 5, "steps": steps, "batch_size": batch}
    whole = studio.run(**options)
    for events in range(1, len(whole.events)):
        job = cancelled(studio.job(**options), partial(has_said, events))
        complete = [end for end in (*range(batch, 5, batch), 5) if reached(job, steps * end)]
        wanted = [f"image-{index:04}.png" for index in range(max(complete, default=0))]
        assert [name for name in job.published() if name != SHEET] == wanted
        assert all(job.files()[name] == whole.files()[name] for name in wanted)
        assert [name for name in job.names() if name != SHEET] == wanted


def test_a_cancelled_job_begins_nothing_more(studio: Studio) -> None:
    job = studio.job(**OPTIONS)
    cancelled(job, lambda job: reached(job, 8))
    assert job.steps[-1] == 8
    assert job.published() == ["image-0000.png", "image-0001.png"]


def test_a_cancellation_waits_for_one_tile_and_not_for_the_picture(studio: Studio) -> None:
    options: dict[str, Any] = {"n_images": 3, "batch_size": 1, "steps": 2}
    options |= {"width": 1800, "height": 8}
    whole = studio.run(**options)
    job = studio.job(**options)
    cancelled(job, lambda job: reached(job, 4) and isinstance(job.events[-1], SafePoint))
    assert job.published() == ["image-0000.png"]
    assert job.files()["image-0000.png"] == whole.files()["image-0000.png"]


@pytest.mark.parametrize("request_", [Request.FINISH, Request.STOP])
@pytest.mark.parametrize("steps", [1, 2])
def test_finish_and_stop_keep_every_picture_that_has_all_its_steps(
    studio: Studio, request_: Request, steps: int
) -> None:
    for pictures in (1, 2, 3):
        job = studio.job(n_images=5, batch_size=1, steps=steps)
        asked(job, request_, steps * pictures)
        assert len([name for name in job.published() if name != SHEET]) == pictures


@pytest.mark.parametrize("harm", ["cut", "gone", "state", "changed"])
def test_a_damaged_checkpoint_is_not_whole(studio: Studio, harm: str) -> None:
    folder = until_checkpoint(studio.job(**OPTIONS)).checkpoint()
    assert folder is not None
    assert is_whole(folder)
    picture = folder.parent / "image-0001.png"
    content = picture.read_bytes()
    if harm == "gone":
        picture.unlink()
    elif harm == "state":
        (folder / STATE).write_text("{")
    else:
        changed = content[:-20] if harm == "cut" else content[:-1] + b"x"
        picture.unlink()
        picture.write_bytes(changed)
    assert not is_whole(folder)


def test_every_checkpoint_of_a_job_is_whole(studio: Studio) -> None:
    job = studio.run(**OPTIONS | {"batch_size": 1})
    folders = [job.folder / event.folder for event in job.of(Checkpoint)]
    assert len(folders) == 4
    assert all(is_whole(folder) for folder in folders)


def test_a_checkpoint_of_other_pictures_is_refused(studio: Studio, tmp_path: Path) -> None:
    folder = until_checkpoint(studio.job(**OPTIONS)).checkpoint()
    assert folder is not None
    (folder / STATE).write_text('{"sha256": {"../../image-0000.png": "0"}}')
    with pytest.raises(JobError, match=r"has \.\./\.\./image-0000\.png in place of"):
        studio.run(checkpoint=folder, **OPTIONS)
