"""Diffusion jobs by way of the real client: what is uploaded, recorded, refused and looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from daemon.cli import main
from daemon.client import Client
from daemon.errors import ConflictError, SpecRefusedError
from daemon.ledger import attempts
from daemon.ledger.attempts import Claim, Ending, File
from daemon.ledger.states import AttemptState
from daemon.models import ModelRoots
from tests.unit.image_folders import cut_short, write_checkpoint, write_image_folder
from tests.unit.language_folders import write_gguf

Submit = Callable[..., int]
NOW = 1_800_000_000.0


@pytest.fixture
def client(stage: Any) -> Iterator[Client]:
    write_image_folder(stage.paths.models / "shapes")
    with Client(stage.paths.socket) as opened:
        yield opened


@pytest.fixture
def brought(tmp_path: Path) -> Path:
    """A folder with a picture, its mask, one of another size, a text and a LoRA file."""
    for name, size in (("photo", (64, 48)), ("mask", (64, 48)), ("other", (48, 64))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    lora = {"lora_unet_mid_block.lora_down.weight": np.zeros((1, 4), np.float32)}
    save_file(lora, tmp_path / "ink.safetensors")
    return tmp_path


def test_a_prompt_is_enough(client: Client) -> None:
    number = client.submit("diffuse", {"prompt": "a red circle"})["id"]

    job = client.job(number)

    assert job["state"] == "queued"
    seed = job["spec"].pop("seed")
    assert isinstance(seed, int)
    assert job["spec"] == {
        "prompt": "a red circle",
        "model": "shapes",
        "negative_prompt": None,
        "n_images": 1,
        "batch_size": "auto",
        "steps": 25,
        "cfg": 7.5,
        "sampler": "ddim",
        "width": None,
        "height": None,
        "image": None,
        "strength": 0.7,
        "mask": None,
        "lora": [],
        "metadata": True,
        "preview_every": 5,
        "prediction_type": None,
    }
    again = client.repeat(number)["id"]
    assert client.job(again)["spec"] == job["spec"] | {"seed": seed}
    client.submit("diffuse", client.job(number)["spec"])


def test_pictures_and_loras_travel_by_hash(client: Client, brought: Path) -> None:
    lora = client.lora(f"{brought}/ink.safetensors:0.5")
    plain = client.lora(f"{brought}/ink.safetensors")
    spec = {
        "prompt": "x",
        "image": client.upload(brought / "photo.png"),
        "mask": client.upload(brought / "mask.png"),
        "lora": [lora, plain],
    }

    job = client.job(client.submit("diffuse", spec)["id"])

    assert job["spec"]["image"]["name"] == "photo.png"
    assert [part["scale"] for part in job["spec"]["lora"]] == [0.5, 1.0]
    assert job["spec"]["lora"][0]["file"] == plain["file"]


@pytest.mark.parametrize(
    ("files", "field", "message"),
    [
        ({"image": "notes.txt"}, "image", "notes.txt is not a picture of a format that is read"),
        ({"image": "photo.png", "mask": "other.png"}, "mask", "48x64 pixels, but the image photo"),
        ({"image": "photo.png", "mask": "notes.txt"}, "mask", "notes.txt is not a picture"),
        ({"lora": "photo.png"}, "lora.0.file", "photo.png is not a complete safetensors file"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    client: Client, brought: Path, files: dict[str, str], field: str, message: str
) -> None:
    spec: dict[str, Any] = {"prompt": "x"}
    for place, name in files.items():
        blob = client.upload(brought / name)
        spec[place] = [{"file": blob}] if place == "lora" else blob

    with pytest.raises(SpecRefusedError) as caught:
        client.submit("diffuse", spec)

    assert message in caught.value.message
    assert caught.value.field == field
    assert caught.value.remedy
    assert client.jobs()["total"] == 0


def test_a_lora_that_was_not_uploaded_is_refused(client: Client) -> None:
    file = {"name": "ink.safetensors", "sha256": "1" * 64}
    with pytest.raises(SpecRefusedError, match=r"lora\.0\.file: you have not uploaded ink"):
        client.submit("diffuse", {"prompt": "x", "lora": [{"file": file}]})


def test_models_of_the_wrong_kind_are_refused_with_those_of_the_right(
    stage: Any, client: Client
) -> None:
    write_gguf(stage.paths.models / "llama.gguf")

    with pytest.raises(SpecRefusedError) as pictures:
        client.submit("diffuse", {"prompt": "x", "model": "llama"})
    with pytest.raises(SpecRefusedError) as text:
        client.submit("infer", {"prompt": "x", "model": "shapes"})

    assert pictures.value.message.startswith("model = 'llama': llama is a language model (gguf)")
    assert pictures.value.remedy == "image models here: shapes"
    assert text.value.message.startswith("model = 'shapes': shapes is an image model (diffusers)")
    assert "llama, smollm2" in str(text.value.remedy)
    assert {pictures.value.field, text.value.field} == {"model"}


def test_a_model_without_a_part_is_refused_by_name(stage: Any, client: Client) -> None:
    vae = write_image_folder(stage.paths.models / "half") / "vae"
    vae.rename(stage.paths.home / "vae")
    with pytest.raises(SpecRefusedError, match=r"half is incomplete: it has no vae/"):
        client.submit("diffuse", {"prompt": "x", "model": "half"})


def test_what_no_job_can_use_is_refused_and_listed_with_the_reason(
    stage: Any, client: Client
) -> None:
    folder = write_image_folder(stage.paths.models / "cut")
    cut_short(folder / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(SpecRefusedError) as refused:
        client.submit("diffuse", {"prompt": "x", "model": "cut"})
    assert refused.value.message.startswith(
        "model = 'cut': unet/diffusion_pytorch_model.safetensors is incomplete"
    )
    listed = {model["name"]: model for model in client.models()["models"]}
    assert listed["cut"]["state"] == "unusable"
    told = str(listed["cut"]["error"]).removeprefix("cut: ")
    assert refused.value.message == f"model = 'cut': {told}"
    assert (listed["shapes"]["state"], listed["shapes"]["error"]) == ("ready", None)


def test_a_checkpoint_without_a_part_is_refused_by_the_part(stage: Any, client: Client) -> None:
    write_checkpoint(stage.paths.models / "half.safetensors", "first_stage_model.encoder.bias")
    with pytest.raises(
        SpecRefusedError, match=r"half\.safetensors has no UNet and no text encoder"
    ):
        client.submit("diffuse", {"prompt": "x", "model": "half"})


def test_a_model_tells_what_it_is(
    stage: Any, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["models", "show", "shapes", "--socket", str(stage.paths.socket)]
    assert main(words) == 0
    told, _, files = capsys.readouterr().out.partition("\n\n")
    assert "unet/config.json" in files
    lines = dict(line.split(None, 1) for line in told.splitlines())
    assert lines["architecture"] == "SD 1.x"
    assert lines["family"] == "SD 1.x"
    assert lines["native"].split() == ["size", "64x64"]
    assert lines["prediction"].split() == ["type", "epsilon"]
    assert main(["models", "show", "smollm2", *words[3:]]) == 0
    assert "family" not in capsys.readouterr().out


def test_a_shipped_model_is_found_behind_all_roots(stage: Any, client: Client) -> None:
    shipped = write_image_folder(stage.paths.home / "shipped" / "stars").parent
    desk = replace(stage.service.desk, models=ModelRoots((stage.paths.models, shipped)))
    draft = desk.check(
        stage.service.people.person(0),
        {"kind": "diffuse", "spec": {"prompt": "x", "model": "stars"}},
    )
    assert not draft.job.needs_download


# Previews


@pytest.fixture
def running(stage: Any, client: Client) -> Claim:
    """A diffusion whose attempt runs."""
    number = client.submit("diffuse", {"prompt": "x"})["id"]
    with stage.ledger.writing() as session:
        claim = attempts.claim(session, number, worker="w", device="cpu", now=NOW)
    assert claim is not None
    return claim


def draw(stage: Any, claim: Claim, content: bytes) -> None:
    """Put a preview in place of the one before, as a job does."""
    folder = stage.paths.attempt(claim.job_id, claim.number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "part").write_bytes(content)
    (folder / "part").replace(folder / "preview.png")


def test_the_latest_preview_is_brought_in_place_of_the_one_before(
    stage: Any, client: Client, running: Claim, tmp_path: Path
) -> None:
    target = tmp_path / "there" / "preview.png"
    for content in (b"first" * 10, b"second" * 200_000):
        draw(stage, running, content)
        assert client.preview(running.job_id, target) == target
        assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["preview.png"]


def test_a_preview_is_a_picture_that_nothing_keeps(
    stage: Any, peer: Any, client: Client, running: Claim
) -> None:
    draw(stage, running, b"content")
    answer = peer.ask("GET", f"/jobs/{running.job_id}/preview")
    assert (answer.status, answer.body) == (200, b"content")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "no-store"


def no_preview(client: Client, number: int, folder: Path) -> ConflictError:
    with pytest.raises(ConflictError) as caught:
        client.preview(number, folder / "a.png")
    assert list(folder.iterdir()) == []
    return caught.value


def test_where_there_is_no_preview_yet_it_is_said_when_one_comes(
    client: Client, running: Claim, tmp_path: Path
) -> None:
    error = no_preview(client, 1, tmp_path)
    assert error.message == "job 1 has drawn no preview yet"
    assert error.remedy == "it draws one every 5 steps; try again in a while"


def test_a_job_that_has_ended_has_pictures_and_no_preview(
    stage: Any, client: Client, running: Claim, tmp_path: Path
) -> None:
    draw(stage, running, b"content")
    with stage.ledger.writing() as session:
        attempts.end(session, running.fence, Ending(state=AttemptState.SUCCEEDED), now=NOW)
    error = no_preview(client, 1, tmp_path)
    assert error.message == ("job 1 has ended: it is succeeded; only a running job has a preview")
    assert error.remedy == "studioq fetch 1 brings what it has made"


@pytest.mark.parametrize("hold", [False, True])
def test_a_job_that_waits_has_no_preview(client: Client, tmp_path: Path, hold: bool) -> None:
    number = client.submit("diffuse", {"prompt": "x"}, hold=hold)["id"]
    state = "held" if hold else "queued"
    error = no_preview(client, number, tmp_path)
    assert error.message.startswith(f"job {number} does not run yet: it is {state}")
    assert error.remedy == f"studioq show {number} says what it waits for"


def test_a_job_that_draws_no_previews_says_so(stage: Any, client: Client, tmp_path: Path) -> None:
    number = client.submit("diffuse", {"prompt": "x", "preview_every": 0})["id"]
    with stage.ledger.writing() as session:
        assert attempts.claim(session, number, worker="w", device="cpu", now=NOW)
    error = no_preview(client, number, tmp_path)
    assert error.message == f"job {number} draws no previews: its preview_every is 0"


def test_a_job_of_another_kind_has_no_preview(peer: Any, submit: Submit) -> None:
    number = submit(peer)
    answer = peer.ask("GET", f"/jobs/{number}/preview")
    assert (answer.status, answer.error["code"]) == (409, "conflict")
    assert "of the kind noop; only a diffusion" in answer.error["message"]


def test_without_a_preview_the_command_ends_as_one_that_was_not_to_be_used_so(
    stage: Any, running: Claim, capsys: pytest.CaptureFixture[str]
) -> None:
    socket = ["--socket", str(stage.paths.socket)]
    assert main(["fetch", "1", "--preview", *socket]) == 2
    assert "has drawn no preview yet" in capsys.readouterr().err
    assert main(["fetch", "7", "--preview", *socket]) == 4


def test_nothing_fetched_from_a_running_job_points_to_its_preview(
    client: Client, running: Claim, tmp_path: Path
) -> None:
    with pytest.raises(ConflictError) as caught:
        client.fetch(running.job_id, to=tmp_path)
    assert caught.value.message == "job 1 is running and has no results yet"
    assert str(caught.value.remedy).startswith("studioq fetch 1 --preview brings the picture")


def test_nothing_fetched_from_a_job_without_previews_points_to_its_end(
    stage: Any, client: Client, tmp_path: Path
) -> None:
    number = client.submit("diffuse", {"prompt": "x", "preview_every": 0})["id"]
    with stage.ledger.writing() as session:
        assert attempts.claim(session, number, worker="w", device="cpu", now=NOW)
    with pytest.raises(ConflictError) as caught:
        client.fetch(number, to=tmp_path)
    assert caught.value.remedy == f"studioq wait {number} waits for its end"


def test_a_job_finished_before_its_first_picture_is_cancelled_and_says_so(
    stage: Any,
    client: Client,
    running: Claim,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.finish(running.job_id)
    with stage.ledger.writing() as session:
        attempts.end(session, running.fence, Ending(state=AttemptState.SUCCEEDED), now=NOW)
    with pytest.raises(ConflictError) as caught:
        client.fetch(running.job_id, to=tmp_path)
    assert caught.value.message == (
        "job 1 is cancelled and has no results: finished early, as its user asked, before it had "
        "made anything"
    )
    assert main(["wait", "1", "--socket", str(stage.paths.socket)]) == 1
    told = (
        "studioq: job 1 cancelled: finished early, as its user asked, before it had made anything"
    )
    assert told in capsys.readouterr().err


def test_a_cancelled_job_says_by_whom(
    stage: Any, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    client.cancel(client.submit("diffuse", {"prompt": "x"})["id"])
    assert main(["wait", "1", "--socket", str(stage.paths.socket)]) == 1
    assert capsys.readouterr().err.startswith("studioq: job 1 cancelled by ")


def test_a_preview_that_is_a_link_is_not_followed(
    stage: Any, client: Client, running: Claim, tmp_path: Path
) -> None:
    draw(stage, running, b"content")
    path = stage.paths.attempt(running.job_id, running.number) / "preview.png"
    path.unlink()
    path.symlink_to(stage.ledger.path)
    assert "no preview" in no_preview(client, running.job_id, tmp_path).message


def test_the_preview_is_for_those_who_may_read_the_pictures(
    stage: Any, client: Client, stranger: Any, other: Any, peer: Any, submit: Submit
) -> None:
    job = {"kind": "diffuse", "spec": {"prompt": "x"}}
    numbers = submit(stranger, **job), submit(stranger, **job, share=True)
    for number in numbers:
        with stage.ledger.writing() as session:
            claim = attempts.claim(session, number, worker="w", device="cpu", now=NOW)
        assert claim is not None
        draw(stage, claim, b"content")
        with stage.ledger.writing() as session:
            attempts.report_progress(session, claim.fence, done=1, total=2, eta_seconds=None)

    own, shared = (f"/jobs/{number}/preview" for number in numbers)

    assert other.ask("GET", own).status == 403
    assert [asker.ask("GET", own).status for asker in (stranger, peer)] == [200, 200]
    assert other.ask("GET", shared).body == b"content"


def test_the_command_writes_into_the_jobs_folder(
    stage: Any,
    running: Claim,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(stage, running, b"content")
    words = ["fetch", "1", "--preview", "--socket", str(stage.paths.socket)]
    for _ in range(2):
        assert main(words) == 0
        assert capsys.readouterr().out == "job-1/preview.png\n"
    assert (tmp_path / "job-1" / "preview.png").read_bytes() == b"content"
    assert main([*words, "--to", "here", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": "here/preview.png", "bytes": 7}


def test_finished_pictures_can_be_fetched_while_the_job_runs(
    stage: Any, client: Client, running: Claim, tmp_path: Path
) -> None:
    folder = stage.paths.attempt(running.job_id, running.number)
    folder.mkdir(parents=True)
    (folder / "image-0000.png").write_bytes(b"x")
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    file = File(name="image-0000.png", kind="image", bytes=1, sha256=digest, step=1)
    with stage.ledger.writing() as session:
        attempts.add_checkpoint(
            session, running.fence, step=1, folder="done-00001", files=(file,), now=NOW
        )

    (fetched,) = client.fetch(running.job_id, to=tmp_path / "out")

    assert fetched.path.read_bytes() == b"x"
    assert client.job(running.job_id)["state"] == "running"


def test_the_command_submits_what_it_was_given(
    stage: Any, client: Client, brought: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["diffuse", "a fox", "--no-metadata", "--steps", "4", "--seed", "7", "--image"]
    words += [str(brought / "photo.png"), "--lora", f"{brought}/ink.safetensors:0.25"]
    assert main([*words, "--socket", str(stage.paths.socket)]) == 0
    number = int(capsys.readouterr().out)
    spec = client.job(number)["spec"]
    assert (spec["prompt"], spec["metadata"], spec["steps"], spec["seed"]) == ("a fox", False, 4, 7)
    assert spec["image"]["name"] == "photo.png"
    assert [(part["file"]["name"], part["scale"]) for part in spec["lora"]] == [
        ("ink.safetensors", 0.25)
    ]


def test_the_command_tells_of_an_option_that_is_not_used(
    stage: Any, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["diffuse", "x", "--cfg", "0", "--negative-prompt", "text"]
    assert main([*words, "--socket", str(stage.paths.socket)]) == 0
    out, err = capsys.readouterr()
    assert int(out) == 1
    assert err.startswith("studioq: note: the negative prompt is not used: --cfg 0 means")
    assert main(["repeat", out.strip(), "--socket", str(stage.paths.socket)]) == 0
    assert "note: the negative prompt is not used" in capsys.readouterr().err


def run_on(stage: Any, number: int, fingerprint: str) -> None:
    """Run a job to its good end on the model with this fingerprint."""
    file = File(name="image-0000.png", kind="image", bytes=1, sha256="a" * 64)
    with stage.ledger.writing() as session:
        claim = attempts.claim(session, number, worker="w", device="cpu", now=NOW)
        assert claim is not None
        attempts.report_facts(session, claim.fence, {"model_fingerprint": fingerprint})
        ending = Ending(state=AttemptState.SUCCEEDED, files=(file,))
        attempts.end(session, claim.fence, ending, now=NOW)


def test_a_repeat_on_another_model_says_so(
    stage: Any, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    first = client.submit("diffuse", {"prompt": "x"})["id"]
    run_on(stage, first, "a" * 64)
    with ThreadPoolExecutor() as pool:
        words = ["repeat", str(first), "--wait", "--socket", str(stage.paths.socket)]
        code = pool.submit(main, words)
        while client.jobs()["total"] < 2:
            assert not code.done()
        run_on(stage, first + 1, "b" * 64)
        assert code.result() == 0
    err = capsys.readouterr().err
    assert f"since job {first} the model shapes has changed (aaaaaaaa… to bbbbbbbb…)" in err
    assert f"identical to those of job {first}" in err


def test_a_strength_that_leaves_no_step_is_refused(client: Client, brought: Path) -> None:
    image = client.upload(brought / "photo.png")
    with pytest.raises(SpecRefusedError, match=r"strength = 0\.01 leaves none of 25 steps"):
        client.submit("diffuse", {"prompt": "x", "image": image, "strength": 0.01})


def test_the_command_tells_a_refusal(
    stage: Any, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["diffuse", "--socket", str(stage.paths.socket)]
    assert main([*words, " "]) == 2
    assert "prompt = ' ': it is empty" in capsys.readouterr().err
    assert main([*words, "x", "--width", "100"]) == 2
    assert "nearest: 96 and 104\n  remedy: correct --width" in capsys.readouterr().err


def test_the_schema_has_the_kind(client: Client) -> None:
    properties = client.schema()["kinds"]["diffuse"]["properties"]
    assert properties["prompt"]["option"] == "PROMPT"
    assert properties["sampler"]["default"] == "ddim"
    assert properties["width"]["anyOf"][0]["multipleOf"] == 8


def test_the_demo_language_model_is_refused_before_it_is_fetched(client: Client) -> None:
    with pytest.raises(SpecRefusedError) as refused:
        client.submit("diffuse", {"prompt": "x", "model": "smollm2"})

    assert refused.value.message.startswith("model = 'smollm2': smollm2 is a language model")
