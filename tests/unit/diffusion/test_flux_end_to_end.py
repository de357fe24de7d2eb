"""FLUX's sister Z-Image through the real mflux, with random weights and a network made tiny.

Runs where the extra ``studioq[flux]`` is installed, and on Linux where mflux was installed by hand
beside MLX's CPU build. Only numbers of mflux's networks are changed: its constructors are called
with smaller sizes. The VAE is of full size.
"""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from daemon.errors import ModelError, NonFiniteError
from daemon.specs import DiffuseSpec, InputFile, LoraFile
from workers.checkpoints import is_whole
from workers.diffusion import flux
from workers.diffusion.metadata import read_record
from workers.diffusion.mflux_models.handover import reports_of
from workers.events import Artifact, Checkpoint, Event, Log, Progress, Stopped
from workers.kinds import Context, Request
from workers.models import ModelCache

pytest.importorskip("greenlet", reason="the extra studioq[flux] is not installed")
pytest.importorskip("mflux", reason="the extra studioq[flux] is not installed")

WORDS = ("<pad>", "<unk>", "a", "red", "blue", "circle", "user", "assistant", ":")
TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }}{% endfor %} assistant :"
TRANSFORMER = {
    "dim": 64,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "cap_feat_dim": 64,
    "axes_dims": [8, 12, 12],
}
ENCODER = {
    "vocab_size": 16,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "head_dim": 16,
}
FILE = InputFile(name="a style.safetensors", sha256="0" * 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny Z-Image model, for which mflux's constructors stay patched."""
    initializer: Any = importlib.import_module("mflux.models.z_image.z_image_initializer")
    with pytest.MonkeyPatch.context() as patch:
        for name, sizes in (("ZImageTransformer", TRANSFORMER), ("TextEncoder", ENCODER)):
            patch.setattr(initializer, name, functools.partial(getattr(initializer, name), **sizes))
        folder = tmp_path_factory.mktemp("models") / "tiny-z-image"
        save(initializer.ZImageInitializer, folder)
        yield folder


def save(initializer: Any, folder: Path) -> None:
    """Build the networks as mflux does, and save them as it saves models."""
    z_image: Any = importlib.import_module("mflux.models.z_image.variants.z_image")
    configs: Any = importlib.import_module("mflux.models.common.config.model_config")
    tokens: Any = importlib.import_module("mflux.models.common.tokenizer")
    mx.random.seed(0)
    network = z_image.ZImage.__new__(z_image.ZImage)
    z_image.nn.Module.__init__(network)
    initializer._init_config(network, configs.ModelConfig.z_image())
    initializer._init_models(network)
    network.tokenizers = {"z_image": tokens.LanguageTokenizer(tokenizer(), max_length=512)}
    network.bits = None
    network.set_dtype(mx.bfloat16)
    network.save_model(str(folder))
    (folder / "model_index.json").write_text('{"_class_name": "ZImagePipeline"}')
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 6.0}))


def tokenizer() -> Any:
    tokenizers: Any = importlib.import_module("tokenizers")
    transformers: Any = importlib.import_module("transformers")
    words = {word: index for index, word in enumerate(WORDS)}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>"
    )
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture(scope="module")
def models() -> ModelCache:
    return ModelCache(1 << 32, time.monotonic)


class Job:
    """A job of the kind under test, run step by step."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        models: ModelCache,
        inputs: dict[str, Path] | None = None,
        checkpoint: Path | None = None,
        **options: Any,
    ) -> None:
        given = {"prompt": "a red circle", "seed": 7, "steps": 2, "width": 16, "height": 32}
        folder.mkdir()
        self.context = Context(
            job=1,
            attempt=1,
            spec=DiffuseSpec(**{**given, "model": model.name, "cfg": 4, **options}),
            folder=folder,
            models=models,
            inputs=inputs or {},
            model=model,
            checkpoint=checkpoint,
        )
        self.events = cast("Generator[Event, None, None]", flux.run(self.context))

    def run(self) -> list[Event]:
        return list(self.events)

    def picture(self, index: int = 0) -> np.ndarray[Any, Any]:
        return np.asarray(Image.open(self.context.folder / f"image-{index:04}.png"))


def published(events: list[Event]) -> list[str]:
    """Return the files that became artifacts, in order."""
    names: list[str] = []
    for event in events:
        if isinstance(event, Artifact):
            names.append(event.path)
        elif isinstance(event, Checkpoint):
            names.extend(event.files)
    return names


def test_pictures_of_consecutive_seeds(tmp_path: Path, model: Path, models: ModelCache) -> None:
    both, second = (
        Job(tmp_path / "both", model, models, n_images=2),
        Job(tmp_path / "second", model, models, seed=8),
    )
    events = both.run()
    second.run()
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done == [1, 2, 3, 4, 5, 6]
    assert published(events) == ["image-0000.png", "image-0001.png", "contact-sheet.png"]
    assert both.picture().shape == (32, 16, 3)
    assert (both.picture(1) == second.picture()).all()
    assert (both.picture(0) != both.picture(1)).any()
    record = read_record(both.context.folder / "image-0001.png")
    assert record is not None
    assert record["image"] == {"index": 1, "seed": 8, "width": 16, "height": 32}


def test_a_closed_job_stops_at_its_step_and_leaves_the_model_usable(
    tmp_path: Path, model: Path, models: ModelCache
) -> None:
    stopped, whole, again = (
        Job(tmp_path / name, model, models) for name in ("stopped", "whole", "again")
    )
    whole.run()
    while not isinstance(next(stopped.events), Progress):
        pass
    stopped.events.close()
    assert list(stopped.context.folder.iterdir()) == []
    events = again.run()
    assert not any("Loading" in event.text for event in events if isinstance(event, Log))
    assert (again.picture() == whole.picture()).all()


def test_two_jobs_in_turns_do_not_disturb_each_other(
    tmp_path: Path, model: Path, models: ModelCache
) -> None:
    alone = Job(tmp_path / "alone", model, models)
    alone.run()
    first, other = (
        Job(tmp_path / "first", model, models),
        Job(tmp_path / "other", model, models, seed=9),
    )
    live = [first, other]
    while live:
        live = [job for job in live if next(job.events, None) is not None]
    assert (first.picture() == alone.picture()).all()
    assert (other.picture() != alone.picture()).any()


def test_a_job_finishes_with_the_pictures_that_there_are(
    tmp_path: Path, model: Path, models: ModelCache
) -> None:
    job = Job(tmp_path / "job", model, models, n_images=3)
    events = []
    for event in job.events:
        events.append(event)
        if isinstance(event, Progress) and event.done == 4:
            job.context.control.request = Request.FINISH
    assert published(events) == ["image-0000.png"]
    assert isinstance(events[-1], Log)
    assert events[-1].text == "Finished as asked, after 1 of 3 pictures"


def test_a_stopped_job_goes_on_with_the_first_picture_that_is_missing(
    tmp_path: Path, model: Path, models: ModelCache
) -> None:
    whole, stopped = (Job(tmp_path / name, model, models, n_images=2) for name in ("whole", "half"))
    whole.run()
    events = []
    for event in stopped.events:
        events.append(event)
        if isinstance(event, Progress) and event.done == 4:
            stopped.context.control.request = Request.STOP
    assert isinstance(events[-1], Stopped)
    folder = next(event.folder for event in events if isinstance(event, Checkpoint))
    checkpoint = stopped.context.folder / folder
    assert is_whole(checkpoint)
    going_on = Job(tmp_path / "rest", model, models, n_images=2, checkpoint=checkpoint)
    done = going_on.run()
    assert [event.done for event in done if isinstance(event, Progress)] == [4, 5, 6]
    assert published(done) == ["image-0000.png", "image-0001.png", "contact-sheet.png"]
    for index in range(2):
        assert (going_on.picture(index) == whole.picture(index)).all()


def test_a_picture_to_start_from(tmp_path: Path, model: Path, models: ModelCache) -> None:
    source = tmp_path / "cat.png"
    Image.new("RGB", (40, 30), "red").save(source)
    job = Job(
        tmp_path / "job",
        model,
        models,
        inputs={"image": source},
        image=FILE,
        strength=0.5,
        width=None,
        height=None,
    )
    events = job.run()
    assert job.picture().shape == (16, 32, 3)
    assert [event.done for event in events if isinstance(event, Progress)] == [2, 3]


def test_a_lora_file_changes_its_own_job_only(
    tmp_path: Path, model: Path, models: ModelCache
) -> None:
    name, file = "diffusion_model.layers.0.attention.to_q", tmp_path / "blob.safetensors"
    factors = {
        f"{name}.lora_A.weight": mx.random.normal((2, 64)),
        f"{name}.lora_B.weight": mx.random.normal((64, 2)),
    }
    mx.save_safetensors(str(file), factors)
    blob = file.rename(tmp_path / "blob")
    before, styled, after = (
        Job(
            tmp_path / name,
            model,
            models,
            inputs={"lora.0.file": blob},
            lora=[LoraFile(file=FILE, scale=3.0)] if name == "styled" else [],
        )
        for name in ("before", "styled", "after")
    )
    before.run()
    said = [event.text for event in styled.run() if isinstance(event, Log)]
    after.run()
    assert any("1 layers (2/2 keys matched)" in line for line in said)
    assert (styled.picture() != before.picture()).any()
    assert (after.picture() == before.picture()).all()


def test_a_lora_file_that_fits_nothing_is_refused(
    tmp_path: Path, model: Path, models: ModelCache
) -> None:
    file = tmp_path / "blob.safetensors"
    mx.save_safetensors(str(file), {"unet.nothing.lora_A.weight": mx.zeros((2, 64))})
    job = Job(
        tmp_path / "job", model, models, inputs={"lora.0.file": file}, lora=[LoraFile(file=FILE)]
    )
    with pytest.raises(ModelError, match="No LoRA layers were applied from 0-a style"):
        job.run()


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_picture_of_nan_is_never_saved(tmp_path: Path, model: Path, part: str) -> None:
    folder = tmp_path / "broken"
    (folder / part).mkdir(parents=True)
    for entry in model.iterdir():
        if entry.name != part:
            (folder / entry.name).symlink_to(entry)
    shard: Any = mx.load(str(model / part / "0.safetensors"), return_metadata=True)
    weights = {name: mx.full(a.shape, mx.nan, dtype=a.dtype) for name, a in shard[0].items()}
    mx.save_safetensors(str(folder / part / "0.safetensors"), weights, shard[1])
    job = Job(tmp_path / "job", folder, ModelCache(1 << 32, time.monotonic))
    with pytest.raises(NonFiniteError, match=r"image 0 \(seed 7\) is not a picture: "):
        job.run()
    assert list(job.context.folder.iterdir()) == []


def test_a_damaged_folder_is_refused(tmp_path: Path, model: Path, models: ModelCache) -> None:
    folder = tmp_path / "cut"
    (folder / "transformer").mkdir(parents=True)
    for name in ("model_index.json", "scheduler"):
        (folder / name).symlink_to(model / name)
    whole = (model / "transformer" / "0.safetensors").read_bytes()
    (folder / "transformer" / "0.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ModelError, match=r"^transformer/0\.safetensors is incomplete"):
        Job(tmp_path / "job", folder, models).run()


def test_reports_come_one_by_one_and_closing_ends_the_function() -> None:
    seen: list[int | str] = []

    def count(report: Any) -> str:
        try:
            for number in range(3):
                seen.append(number)
                report(number)
        finally:
            seen.append("left")
        return "done"

    reports = reports_of(count)
    assert next(reports) == 0
    assert seen == [0]
    reports.close()
    assert seen == [0, "left"]
    with pytest.raises(StopIteration, match="done"):
        reports = reports_of(count)
        while True:
            next(reports)


def test_what_the_function_raises_is_raised() -> None:
    def fail(report: Any) -> None:
        report(1)
        raise NonFiniteError("no number")

    with pytest.raises(NonFiniteError, match="no number"):
        list(reports_of(fail))
