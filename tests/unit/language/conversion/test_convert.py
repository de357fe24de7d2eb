"""The convert kind, run as the engine runs it: real models, real files, ended at any safe point."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest

from daemon.errors import DiskFullError, JobError, ModelError
from tests.unit.language.conversion.conftest import Studio, differing, logits, weights
from workers.events import Artifact, Checkpoint, Event, Facts, Log, Metric, Progress, Stopped
from workers.kinds import Request
from workers.language.load import load_language_model

# Less than any two layers of the tiny model, so that each is a file of its own.
SMALL = 1000


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def until_checkpoint(events: Iterator[Event], step: int) -> None:
    for event in events:
        if isinstance(event, Checkpoint) and event.step == step:
            return
    pytest.fail(f"there was no checkpoint {step}")


def config(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return read


def test_a_converted_model_answers_as_its_source(studio: Studio, tiny_model: Path) -> None:
    studio.convert(tiny_model)
    assert mx.array_equal(logits(studio.target), logits(tiny_model)).item()
    ours, theirs = load_language_model(studio.target), mlx_lm.load(str(studio.target))[1]
    text = "Spaces  and ümläuts 🙂"
    assert ours.tokenizer.encode(text) == theirs.encode(text)
    assert ours.tokenizer.chat_template == load_language_model(tiny_model).tokenizer.chat_template


def test_what_was_done_is_told(studio: Studio, tiny_model: Path) -> None:
    events = studio.convert(tiny_model, quantize="4", group_size=32)
    assert of(Progress, events)[-1].done == of(Progress, events)[-1].total
    (facts,), (metric,) = of(Facts, events), of(Metric, events)
    assert len(facts.facts["model_fingerprint"]) == 64
    written = sum(array.nbytes for array in weights(studio.target).values())
    assert metric.values["bytes_written"] == written
    assert 4 < metric.values["bits_per_weight"] < 8
    text = "\n".join(event.text for event in of(Log, events))
    assert "quantized: 4, group size 32" in text
    assert "--model ada/new" in text


def test_every_file_can_be_fetched(studio: Studio, tiny_model: Path) -> None:
    names = [event.path for event in of(Artifact, studio.convert(tiny_model))]
    assert "model/model.safetensors" in names
    assert "model/tokenizer.json" in names
    assert differing(weights(studio.attempt / "model"), weights(studio.target)) == []
    mlx_lm.load(str(studio.attempt / "model"))


def test_large_models_are_several_files(studio: Studio, tiny_model: Path) -> None:
    studio.convert(tiny_model, shard_bytes=SMALL)
    files = sorted(path.name for path in studio.target.glob("*.safetensors"))
    assert len(files) > 5
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((studio.target / "model.safetensors.index.json").read_bytes())
    assert set(index["weight_map"].values()) == set(files)
    assert not differing(weights(studio.target), weights(tiny_model))
    load_language_model(studio.target)


def test_nothing_has_the_name_before_the_end(studio: Studio, tiny_model: Path) -> None:
    for _ in studio.begin(tiny_model, shard_bytes=SMALL):
        assert not studio.target.exists()
    assert studio.target.is_dir()
    assert not studio.staging.exists()


def test_a_later_attempt_goes_on_with_the_file_that_is_missing(
    studio: Studio, tiny_model: Path
) -> None:
    undisturbed = Studio(studio.folder / "undisturbed")
    undisturbed.convert(tiny_model, shard_bytes=SMALL, quantize="8")
    until_checkpoint(studio.begin(tiny_model, shard_bytes=SMALL, quantize="8"), 3)
    before = {path: path.stat().st_ino for path in studio.staging.glob("*.safetensors")}
    events = studio.convert(
        tiny_model,
        shard_bytes=SMALL,
        quantize="8",
        checkpoint=studio.attempt / "checkpoint-3",
    )
    assert of(Checkpoint, events)[0].step == 4
    names = sorted(path.name for path in before)[:3]
    kept = {name: (studio.target / name).stat().st_ino for name in names}
    assert kept == {path.name: inode for path, inode in before.items() if path.name in names}
    assert not differing(weights(studio.target), weights(undisturbed.target))
    for name in ("config.json", "model.safetensors.index.json", "tokenizer.json"):
        assert (studio.target / name).read_bytes() == (undisturbed.target / name).read_bytes()


@pytest.mark.parametrize("harm", ["shorter", "gone", "another job's options"])
def test_a_file_that_is_not_as_it_was_is_written_anew(
    harm: str, studio: Studio, tiny_model: Path
) -> None:
    until_checkpoint(studio.begin(tiny_model, shard_bytes=SMALL, quantize="8"), 2)
    checkpoint = studio.attempt / "checkpoint-2"
    first = min(studio.staging.glob("*.safetensors"))
    bits = "8"
    if harm == "shorter":
        first.write_bytes(first.read_bytes()[:-1])
    elif harm == "gone":
        shutil.rmtree(studio.staging)
    else:
        bits = "4"
    studio.convert(tiny_model, shard_bytes=SMALL, quantize=bits, checkpoint=checkpoint)
    peer = Studio(studio.folder / "peer")
    peer.convert(tiny_model, shard_bytes=SMALL, quantize=bits)
    assert not differing(weights(studio.target), weights(peer.target))


def test_a_stop_keeps_what_is_finished_and_a_cancel_does_not(
    studio: Studio, tiny_model: Path
) -> None:
    for request, kept in ((Request.STOP, True), (Request.CANCEL, False)):
        events = studio.begin(tiny_model, shard_bytes=SMALL)
        until_checkpoint(events, 2)
        studio.control.request = request
        rest = list(events)
        assert bool(of(Stopped, rest)) == kept
        assert len(of(Progress, rest)) == 1
        assert studio.staging.exists() == kept
        assert not studio.target.exists()


def test_finish_does_not_make_half_a_model(studio: Studio, tiny_model: Path) -> None:
    events = studio.begin(tiny_model, shard_bytes=SMALL)
    until_checkpoint(events, 1)
    studio.control.request = Request.FINISH
    list(events)
    assert not differing(weights(studio.target), weights(tiny_model))


def test_what_has_the_name_is_not_touched(studio: Studio, tiny_model: Path) -> None:
    studio.target.mkdir(parents=True)
    (studio.target / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="there is a model ada/new already"):
        studio.convert(tiny_model)
    assert [path.name for path in studio.target.iterdir()] == ["config.json"]
    assert not studio.staging.exists()


def test_what_takes_the_name_meanwhile_is_not_touched(studio: Studio, tiny_model: Path) -> None:
    events = studio.begin(tiny_model)
    next(events)
    studio.target.mkdir(parents=True)
    (studio.target / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="ada/new already, and its") as caught:
        list(events)
    assert "studioq models rm" in str(caught.value.remedy)
    assert (studio.target / "mine.txt").read_text() == "mine"
    assert not studio.staging.exists()


def test_the_same_conversion_again_finds_the_same_model(studio: Studio, tiny_model: Path) -> None:
    studio.convert(tiny_model, quantize="4")
    before = (studio.target / "model.safetensors").stat().st_ino
    events = studio.convert(tiny_model, quantize="4", job=8)
    assert "is there already, with the same content" in of(Log, events)[-1].text
    assert (studio.target / "model.safetensors").stat().st_ino == before
    with pytest.raises(ModelError, match="made from something else or in another way"):
        studio.convert(tiny_model, quantize="8", job=9)


def test_a_quantized_source_is_not_quantized_again(studio: Studio, tiny_model: Path) -> None:
    studio.convert(tiny_model, quantize="8")
    source = studio.target.rename(studio.folder / "eight")
    with pytest.raises(ModelError) as caught:
        studio.convert(source, quantize="4")
    assert "already quantized with 8 bits" in caught.value.message
    assert "--dequantize" in str(caught.value.remedy)
    studio.convert(source, quantize="4", dequantize=True)
    assert config(studio.target)["quantization"]["bits"] == 4
    load_language_model(studio.target)


def test_groups_that_fit_no_layer_are_refused(studio: Studio, make_tiny_model: Any) -> None:
    from tests.conftest import tiny_config, write_random_llama, write_tiny_tokenizer

    folder = studio.folder / "narrow"
    folder.mkdir(parents=True)
    sizes = {"hidden_size": 48, "intermediate_size": 80}
    write_random_llama(folder, tiny_config(write_tiny_tokenizer(folder)) | sizes)
    with pytest.raises(ModelError, match="no layer that could be quantized in groups of 64"):
        studio.convert(folder, quantize="4")


def test_a_root_that_cannot_be_written_is_said(studio: Studio, tiny_model: Path) -> None:
    studio.target.parent.parent.mkdir(parents=True)
    studio.target.parent.write_text("a file where the folder should be")
    with pytest.raises(JobError, match="ada/new cannot be written: ") as caught:
        studio.convert(tiny_model)
    assert "studioq models path" in str(caught.value.remedy)


def test_a_staging_folder_that_is_taken_away_is_said(studio: Studio, tiny_model: Path) -> None:
    events = studio.begin(tiny_model, shard_bytes=SMALL)
    until_checkpoint(events, 2)
    shutil.rmtree(studio.staging)
    with pytest.raises(JobError, match="ada/new cannot be written: No such file"):
        list(events)


def test_a_link_that_leads_nowhere_keeps_its_name(studio: Studio, tiny_model: Path) -> None:
    studio.target.parent.mkdir(parents=True)
    studio.target.symlink_to("nowhere")
    with pytest.raises(ModelError, match="there is a model ada/new already"):
        studio.convert(tiny_model)
    assert studio.target.is_symlink()


def test_what_the_disk_has_no_room_for_is_not_begun(
    studio: Studio, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(studio.folder.parent)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError, match=r"the disk has 0\.0 GB free, and ada/new needs"):
        studio.convert(tiny_model)
    assert not studio.staging.exists()
