"""What a diffusion leaves, says and takes, and that a picture depends on its seed alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import pytest

from daemon.errors import JobError
from daemon.specs import DiffuseSpec
from tests.integration.diffuse.studio import SHEET, Job, Studio, alike, pixels, same
from workers.diffusion.metadata import read_chunks, read_record
from workers.diffusion.preview import PREVIEW
from workers.events import Artifact, Checkpoint, Event, Facts, Metric, Progress, SafePoint
from workers.memory import free_unused

Models = Callable[[str], Path]

SAMPLERS = get_args(DiffuseSpec.model_fields["sampler"].annotation)
LONG = "a photo of a cat sitting on the table, highly detailed, sharp focus, " * 6


def names(count: int) -> list[str]:
    return [f"image-{index:04}.png" for index in range(count)]


def test_one_picture_is_one_file(studio: Studio) -> None:
    job = studio.run()
    assert job.events[-1] == Artifact(path="image-0000.png", kind="image")
    assert job.published() == job.names() == ["image-0000.png"]
    assert job.picture().shape == (16, 16, 3)
    assert job.picture().std() > 10
    assert job.steps == [1, 2, 3]
    assert job.of(Progress)[-1].eta_seconds == 0


def test_several_pictures_come_batch_by_batch_and_on_a_sheet(studio: Studio) -> None:
    job = studio.run(n_images=5, batch_size=2)
    assert sorted(job.published()) == [SHEET, *names(5)]
    assert len(set(job.published())) == 6
    assert job.published()[-1] == SHEET
    assert job.names() == [SHEET, *names(5)]
    assert len({picture.tobytes() for picture in job.pictures()}) == 5
    assert [event.step for event in job.of(Checkpoint)] == [2, 4]
    assert {event.kind for event in job.of(Checkpoint)} == {"image"}
    assert job.steps == [2, 4, 6, 8, 10, 12, 13, 14, 15]
    assert "5 pictures of 16x16 in batches of 2: 3 steps of ddim, guidance 4, seed 7" in job.log


def test_a_job_is_done_when_its_last_picture_is_written(studio: Studio) -> None:
    job = studio.job(n_images=5, batch_size=2)
    for event in job.start():
        if isinstance(event, Progress):
            assert event.total == 5 * (3 + 1)
            assert event.eta_seconds is not None
            left = 5 - len(list(job.folder.glob("image-*.png")))
            assert event.done <= event.total - left
            assert (event.eta_seconds == 0) == (event.done == event.total)
    assert list(job.reports())[-1] == (5, 15)
    assert any(written < 5 for written, steps in job.reports() if steps == 15)


def test_the_sheet_shows_the_pictures(studio: Studio) -> None:
    job = studio.run(n_images=2, batch_size=2)
    sheet = pixels(job.folder / SHEET)
    for picture in job.pictures():
        rows, columns = (sheet.shape[side] - 15 for side in (0, 1))
        places = ((y, x) for y in range(rows) for x in range(columns))
        assert any(np.array_equal(sheet[y : y + 16, x : x + 16], picture) for y, x in places)


def test_what_the_job_took_and_was_made_with_is_reported(studio: Studio, models: Models) -> None:
    job = studio.run(n_images=2, batch_size=1)
    assert job.facts.items() >= {"width": 16, "height": 16, "batch_size": 1}.items()
    assert job.facts["steps_done"] == 3
    assert job.facts["prediction_type"] == "epsilon"
    assert len(job.facts["model_fingerprint"]) == 64
    assert job.facts["version_mlx"]
    assert job.numbers["step_images_per_second"] > 0
    assert job.numbers["peak_memory_bytes"] > job.facts["model_bytes"]
    values = [value for event in job.of(Metric) for value in event.values.values()]
    assert all(math.isfinite(value) for value in values)
    assert all(event.eta_seconds is not None for event in job.of(Progress))
    sd2 = studio.run(model=models("sd2"))
    assert sd2.facts["prediction_type"] == "v_prediction"
    assert sd2.facts["model_fingerprint"] != job.facts["model_fingerprint"]


def test_a_second_job_loads_nothing_and_is_identical(studio: Studio, models: Models) -> None:
    studio.cache.clear()
    first, second = (studio.run(model=models("sd1"), n_images=2) for _ in range(2))
    assert "Loading tiny" in first.log
    assert first.numbers["load_seconds"] > 0
    assert "Loading" not in second.log
    assert second.numbers["load_seconds"] == 0
    assert same(first, second)


def test_picture_k_of_a_job_is_the_first_of_its_own_seed(studio: Studio) -> None:
    job = studio.run(n_images=4, batch_size=1, metadata=False, sampler="euler-a")
    for index, name in enumerate(names(4)):
        alone = studio.run(seed=7 + index, metadata=False, sampler="euler-a")
        assert alone.files()["image-0000.png"] == job.files()[name]


def test_a_picture_does_not_depend_on_its_batch(studio: Studio) -> None:
    alone = studio.run(n_images=5, batch_size=1, sampler="euler-a").pictures()
    for batch in (2, 3, "auto"):
        assert alike(alone, studio.run(n_images=5, batch_size=batch, sampler="euler-a").pictures())


def test_seeds_begin_again_behind_the_last(studio: Studio) -> None:
    job = studio.run(n_images=2, batch_size=1, seed=2**32 - 1, metadata=False)
    assert job.files()["image-0001.png"] == studio.run(seed=0, metadata=False).files()[names(1)[0]]


@pytest.mark.parametrize("steps", [1, 4])
def test_every_sampler_gives_a_picture_of_its_own(studio: Studio, steps: int) -> None:
    jobs = [studio.run(sampler=sampler, steps=steps) for sampler in SAMPLERS]
    assert all(job.picture().std() > 10 for job in jobs)
    if steps > 1:
        assert len({job.picture().tobytes() for job in jobs}) == len(SAMPLERS)


def test_more_steps_than_the_schedule_has_are_refused_at_once(studio: Studio) -> None:
    job = studio.job(steps=1000, sampler="dpm++2m")
    with pytest.raises(JobError, match="1000 steps do not fit") as caught:
        job.run()
    assert caught.value.remedy == "use at most 999 steps"
    assert job.names() == []


def test_guidance_0_and_1_are_none(studio: Studio) -> None:
    off, one, some = (studio.run(cfg=cfg, metadata=False) for cfg in (0, 1, 7.5))
    assert same(off, one)
    assert "no guidance" in off.log
    assert "no guidance" in one.log
    assert not alike(off.pictures(), some.pictures())


def test_a_negative_prompt_counts_where_there_is_guidance(studio: Studio) -> None:
    def picture(negative: str | None, cfg: float) -> bytes:
        return studio.run(negative_prompt=negative, cfg=cfg).picture().tobytes()

    assert len({picture(negative, 4) for negative in (None, "blurry", "ugly text")}) == 3
    assert picture("", 4) == picture(None, 4)
    assert picture("blurry", 0) == picture(None, 0)


def test_prompts_are_heard_to_their_end(studio: Studio) -> None:
    plain, long, tail = (studio.run(prompt=text) for text in (LONG[:60], LONG, LONG + "at night"))
    pictures = [plain.picture(), long.picture(), tail.picture()]
    assert len({picture.tobytes() for picture in pictures}) == 3
    both = studio.run(prompt=LONG, negative_prompt=LONG + "at night")
    assert not alike(both.pictures(), long.pictures())


@pytest.mark.parametrize(
    "prompt", ["🦊 naïve 猫\n\ttab", "a\0b", "x" * 10_000, "!", "<|endoftext|>"]
)
def test_any_text_is_a_prompt(studio: Studio, prompt: str) -> None:
    job = studio.run(prompt=prompt, width=8, height=8, steps=1)
    record = read_record(job.folder / "image-0000.png")
    assert record is not None
    assert record["spec"]["prompt"] == prompt


@pytest.mark.parametrize("size", [(8, 8), (8, 128), (96, 8), (40, 24)])
def test_any_size_in_steps_of_8(studio: Studio, size: tuple[int, int]) -> None:
    width, height = size
    job = studio.run(width=width, height=height, steps=1, n_images=2, preview_every=1)
    assert [picture.shape for picture in job.pictures()] == [(height, width, 3)] * 2


def test_the_models_own_size_is_taken_where_none_is_given(studio: Studio, models: Models) -> None:
    job = studio.run(model=models("sd2"), width=None, height=None, steps=1, cfg=0)
    assert job.picture().shape == (128, 128, 3)


@pytest.mark.parametrize("name", ["sd2", "sdxl"])
def test_other_families_run(studio: Studio, models: Models, name: str) -> None:
    model = models(name)
    jobs = [studio.run(model=model, n_images=3, batch_size=batch) for batch in (1, 3)]
    assert alike(jobs[0].pictures(), jobs[1].pictures())
    assert all(picture.std() > 10 for picture in jobs[0].pictures())
    negative = studio.run(model=model, negative_prompt="blurry", n_images=3, batch_size=3)
    assert not alike(negative.pictures(), jobs[1].pictures())


def test_an_old_folder_gives_the_same_pictures(studio: Studio, models: Models) -> None:
    new, old = (studio.run(model=models(name), metadata=False) for name in ("sd1", "sd1-old"))
    assert alike(new.pictures(), old.pictures())


def test_what_the_network_predicts_can_be_said(studio: Studio) -> None:
    told = studio.run(prediction_type="v_prediction")
    assert told.facts["prediction_type"] == "v_prediction"
    assert not alike(told.pictures(), studio.run().pictures())
    assert same(studio.run(prediction_type="epsilon", metadata=False), studio.run(metadata=False))


def test_a_picture_can_be_repeated_from_its_own_file(studio: Studio) -> None:
    job = studio.run(n_images=3, batch_size=1, negative_prompt="blurry, text", seed=41)
    record = read_record(job.folder / "image-0002.png")
    assert record is not None
    assert record["image"] == {"index": 2, "seed": 43, "width": 16, "height": 16}
    assert record["spec"] == job.context.spec.model_dump(mode="json")
    assert record["model_fingerprint"] == job.facts["model_fingerprint"]
    assert DiffuseSpec(**record["spec"]) == job.context.spec
    again = studio.run(negative_prompt="blurry, text", seed=record["image"]["seed"])
    assert np.array_equal(again.picture(), job.pictures()[2])
    text = read_chunks(job.folder / "image-0002.png")["parameters"]
    assert text.startswith("a red circle left of the blue square\nNegative prompt: blurry, text\n")
    assert "Steps: 3, Sampler: DDIM, CFG scale: 4, Seed: 43, Size: 16x16" in text


def test_without_metadata_nothing_is_told(studio: Studio) -> None:
    told, silent = (studio.run(n_images=2, metadata=metadata) for metadata in (True, False))
    assert alike(told.pictures(), silent.pictures())
    for name, content in silent.files().items():
        assert read_chunks(silent.folder / name) == {}
        assert b"circle" not in content


@pytest.mark.parametrize("every", [0, 2])
def test_a_preview_is_there_while_the_job_runs(studio: Studio, every: int) -> None:
    job = studio.job(steps=4, n_images=2, batch_size=2, preview_every=every)
    seen = []
    for event in job.start():
        path = job.folder / PREVIEW
        if isinstance(event, Progress):
            seen.append(path.exists())
        if path.exists():
            assert min(pixels(path).shape[:2]) >= 16
    assert any(seen) == bool(every)
    assert PREVIEW not in job.published()
    assert job.names() == [SHEET, *names(2)]


def test_previews_do_not_change_the_pictures(studio: Studio) -> None:
    often, never = (studio.run(preview_every=every, metadata=False) for every in (1, 0))
    assert same(often, never)


def safe_points(events: Iterable[Event]) -> int:
    return sum(isinstance(event, SafePoint) for event in events)


def split(job: Job, kind: type[Event]) -> tuple[list[Event], list[Event]]:
    """Return a job's events before and after the first of a kind."""
    place = next(number for number, event in enumerate(job.events) if isinstance(event, kind))
    return job.events[:place], job.events[place:]


def test_a_large_picture_is_decoded_with_a_safe_point_after_each_tile(studio: Studio) -> None:
    large = studio.run(width=1032, height=16, steps=1)
    assert large.picture().shape == (16, 1032, 3)
    small = studio.run(steps=1)
    points = [safe_points(split(job, Progress)[1]) for job in (large, small)]
    assert points[0] - points[1] == 2


def test_a_large_picture_is_encoded_with_a_safe_point_after_each_tile(studio: Studio) -> None:
    image = studio.drawing("wide", height=16, width=1032)
    job = studio.job(image=image, steps=2, width=None, height=None)
    begun, _ = split(job.run(), Facts)
    assert safe_points(begun) == 1 + 2


def test_two_jobs_taking_turns_make_what_they_make_alone(studio: Studio) -> None:
    options: list[dict[str, Any]] = [
        {"n_images": 3, "batch_size": 1, "sampler": "euler-a"},
        {"n_images": 4, "batch_size": 2, "seed": 9, "sampler": "dpm++2m"},
    ]
    alone = [studio.run(**each) for each in options]
    jobs = [studio.job(**each) for each in options]
    running = [job.start() for job in jobs]
    while running:
        running = [each for each in running if next(each, None) is not None]
    assert all(same(job, before) for job, before in zip(jobs, alone, strict=True))


def test_a_closed_job_leaves_nothing(studio: Studio) -> None:
    studio.run()
    before = threads = 0
    for number, steps in enumerate((10, *range(1, 12))):
        job = studio.job(n_images=4, batch_size=1, preview_every=1)
        running = job.start()
        for _ in range(steps):
            next(running)
        running.close()  # type: ignore[attr-defined]
        kept = set(job.published())
        assert {name for name in job.names() if name not in kept} <= set(names(4))
        assert not any(thread.name.startswith("pictures") for thread in threading.enumerate())
        del job, running
        if number == 0:
            before, threads = free_unused(), psutil.Process().num_threads()
    assert free_unused() == before
    assert psutil.Process().num_threads() == threads
