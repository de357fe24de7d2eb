"""Diffusions as users make them: queued, watched, killed in the middle, cancelled, fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.unit.diffusion import kept, tiny

if TYPE_CHECKING:
    from tests.acceptance.conftest import Home
else:
    Home = Any

SHEET = "contact-sheet.png"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
# Some seconds of eight pictures, one after the other.
LONG = ("--n-images", "8", "--batch-size", "1", "--steps", "24", "--sampler", "euler-a")
SMALL = ("--width", "32", "--height", "32", "--seed", "3")


@pytest.fixture(scope="module")
def model(home: Home) -> str:
    """The name of a tiny image model under the home's model root."""
    folder = home.folder / "home/models/brush"
    tiny.write_folder(folder, kept.PLACE / "folders/sd1", kept.shapes())
    network = kept.networks()["unet/one-block"]
    (folder / "unet/config.json").write_text(json.dumps(network["config"]))
    save_file(tiny.weights("unet/one-block", network["parameters"]), folder / UNET)
    return "brush"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(tiny.picture("photo", 40, 32)).save(path)
    return path


@pytest.fixture
def submit(home: Home, model: str) -> Callable[..., int]:
    """Submit a diffusion of the tiny model and return its number."""

    def one(*words: str | Path) -> int:
        return home.submit("diffuse", "a red circle", "--model", model, *SMALL, *words)

    return one


Submit = Callable[..., int]


def names(job: Any) -> list[str]:
    return sorted(item["name"] for item in job["artifacts"])


def hashes(job: Any) -> dict[str, str]:
    return {item["name"]: item["sha256"] for item in job["artifacts"]}


@pytest.fixture(scope="module")
def undisturbed(home: Home, model: str) -> Any:
    """The long job, run without an interruption."""
    job = home.wait(home.submit("diffuse", "a red circle", "--model", model, *SMALL, *LONG))
    assert [attempt["state"] for attempt in job["attempts"]] == ["succeeded"], (job, home.tails())
    return job


def first_picture(home: Home, number: int) -> None:
    """Wait until a running job has published a picture."""
    home.until(lambda: names(home.job(number)))
    assert home.job(number)["state"] == "running"


def test_the_pictures_are_queued_waited_for_and_fetched(
    home: Home, model: str, tmp_path: Path
) -> None:
    words = ("diffuse", "a red circle", "--model", model, "--wait", *SMALL)
    done = home.run(*words, "--n-images", "3", "--steps", "4", "--negative-prompt", "blurry")
    number = done.stdout.strip()
    fetched = home.run("fetch", number, "--to", tmp_path).stdout.split()
    wanted = [SHEET, *(f"image-{index:04}.png" for index in range(3))]
    assert sorted(Path(path).name for path in fetched) == wanted
    for index in range(3):
        with Image.open(tmp_path / f"image-{index:04}.png") as image:
            assert image.size == (32, 32)
            assert np.asarray(image).std() > 10
            assert image.text["parameters"].startswith(  # type: ignore[attr-defined]
                "a red circle\nNegative prompt: blurry\n"
            )
    job = home.job(int(number))
    assert job["state"] == "succeeded"
    assert names(job) == wanted
    assert job["progress"]["done"] == job["progress"]["total"] == 3 * (4 + 1)
    spec = job["spec"]
    assert (spec["steps"], spec["cfg"], spec["sampler"], spec["seed"]) == (4, 7.5, "ddim", 3)
    assert job["metrics"]["step_images_per_second"] > 0
    assert "3 pictures of 32x32" in home.run("logs", number).stdout


def test_a_repeated_diffusion_is_identical(home: Home, submit: Submit) -> None:
    first = home.wait(submit("--n-images", "2", "--steps", "3"))
    again = home.wait(int(home.run("repeat", str(first["id"])).stdout))
    assert again["identical"] is True
    assert hashes(again) == hashes(first)


def test_a_killed_diffusion_ends_with_the_bytes_of_an_undisturbed_one(
    home: Home, submit: Submit, undisturbed: Any
) -> None:
    number = submit(*LONG)
    first_picture(home, number)
    home.kill("engine")
    job = home.wait(number)
    assert job["state"] == "succeeded", (job, home.tails())
    assert [attempt["state"] for attempt in job["attempts"]] == ["interrupted", "succeeded"]
    assert hashes(job) == hashes(undisturbed)
    assert "there already" in home.run("logs", str(number)).stdout


def test_a_stopped_daemon_lets_a_diffusion_go_on_later(
    home: Home, submit: Submit, undisturbed: Any
) -> None:
    number = submit(*LONG)
    first_picture(home, number)
    home.run("daemon", "stop")
    home.run("daemon", "start")
    job = home.wait(number)
    assert job["state"] == "succeeded", (job, home.tails())
    assert [attempt["state"] for attempt in job["attempts"]] == ["stopped", "succeeded"]
    assert hashes(job) == hashes(undisturbed)


def test_a_preview_can_be_seen_while_the_job_runs_and_a_cancelled_one_keeps_its_pictures(
    home: Home, submit: Submit, undisturbed: Any, tmp_path: Path
) -> None:
    endless = ("--n-images", "100", "--preview-every", "1")
    number = submit(*LONG, *endless)
    first_picture(home, number)
    home.until(
        lambda: (
            home.run("fetch", str(number), "--preview", "--to", tmp_path, check=False).returncode
            == 0
        )
    )
    with Image.open(tmp_path / "preview.png") as preview:
        preview.load()
        assert min(preview.size) >= 32
    home.run("cancel", str(number))
    job = home.wait(number)
    assert job["state"] == "cancelled"
    assert "image-0000.png" in names(job)
    assert SHEET not in names(job)
    assert hashes(job)["image-0000.png"] != hashes(undisturbed)["image-0000.png"], "metadata"
    home.run("fetch", str(number), "--to", tmp_path)
    assert {path.name for path in tmp_path.glob("image-*.png")} == set(names(job))
    gone = home.run("fetch", str(number), "--preview", check=False)
    assert gone.returncode != 0
    assert "only a running job has a preview" in gone.stderr
    home.wait(submit("--steps", "1"))
    assert home.job(number)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("limit", "state"), [((), "cancelled"), (("--time-limit", "2s"), "failed")]
)
def test_neither_a_cancellation_nor_a_time_limit_loses_a_finished_picture(
    home: Home, submit: Submit, limit: tuple[str, ...], state: str
) -> None:
    steps = 1
    number = submit("--n-images", "1000", "--batch-size", "1", "--steps", str(steps), *limit)
    if not limit:
        first_picture(home, number)
        home.run("cancel", str(number))
    job = home.wait(number)
    assert job["state"] == state, (job, home.tails())
    pictures = [f"image-{index:04}.png" for index in range(len(names(job)))]
    assert pictures
    assert names(job) == pictures
    assert job["progress"]["done"] == (steps + 1) * len(pictures) < job["progress"]["total"]


def test_pictures_masks_and_loras_travel(
    home: Home, submit: Submit, photo: Path, tmp_path: Path
) -> None:
    mask, lora = tmp_path / "mask.png", tmp_path / "style.safetensors"
    drawn = np.zeros((40, 32), dtype=np.uint8)
    drawn[:, 16:] = 255
    Image.fromarray(drawn).save(mask)
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    sides = {
        f"{layer}.lora_down.weight": tiny.normal("down", (2, 32)),
        f"{layer}.lora_up.weight": tiny.normal("up", (32, 2)),
    }
    save_file(sides, lora)
    words = ("diffuse", "in winter", "--model", "brush", "--seed", "3", "--steps", "4")
    brought = ("--image", photo, "--mask", mask, "--lora", f"{lora}:0.5", "--no-metadata")
    job = home.wait(home.submit(*words, *brought))
    assert job["state"] == "succeeded", (job, home.tails())
    home.run("fetch", str(job["id"]), "--to", tmp_path)
    with Image.open(tmp_path / "image-0000.png") as image:
        assert image.info == {}
        found = np.asarray(image)
    original = tiny.picture("photo", 40, 32)
    assert np.array_equal(found[:, :16], original[:, :16])
    assert not np.array_equal(found[:, 16:], original[:, 16:])
    assert "LoRA style.safetensors, scale 0.5: 1 layer" in home.run("logs", str(job["id"])).stdout


def test_a_picture_of_no_numbers_fails_the_job_and_is_not_published(home: Home, model: str) -> None:
    root = home.folder / "home/models"
    folder = shutil.copytree(root / model, root / "broken")
    weights = load_file(folder / VAE)
    weights["decoder.conv_out.bias"][:] = np.nan
    save_file(weights, folder / VAE)
    done = home.run(
        *("diffuse", "a red circle", "--model", "broken", "--steps", "2", "--wait", *SMALL),
        check=False,
    )
    assert done.returncode == 1
    job = home.job(int(done.stdout))
    assert job["state"] == "failed"
    assert "image 0 (seed 3) is not a picture" in job["error"]["message"]
    assert job["artifacts"] == []
    assert len(job["attempts"]) == 1


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "empty": (("",), "prompt"),
    "blank": (("  \n",), "prompt"),
    "width": (("x", "--width", "100"), "width"),
    "no-pictures": (("x", "--n-images", "0"), "n-images"),
    "ten-thousand": (("x", "--n-images", "10000"), "n-images"),
    "strength": (("x", "--image", "PHOTO", "--strength", "2"), "strength"),
    "strength-alone": (("x", "--strength", "0.5"), "no image to start from"),
    "mask-alone": (("x", "--mask", "PHOTO"), "no image of which it could be the mask"),
    "mask-size": (("x", "--image", "PHOTO", "--mask", "OTHER"), "the mask other.png is 8x8"),
    "text": (("x", "--image", "TEXT"), "notes.txt is not a picture"),
    "text-mask": (("x", "--image", "PHOTO", "--mask", "TEXT"), "notes.txt is not a picture"),
    "text-lora": (("x", "--lora", "TEXT"), "notes.txt"),
    "nothing-there": (("x", "--image", "no-such.png"), "no-such.png"),
    "sampler": (("x", "--sampler", "plms"), "plms"),
    "huge": (("x", "--width", "16384", "--height", "16384"), "268 megapixels"),
    "no-model": (("x", "--model", "no-such-model"), "no-such-model"),
    "lora-scale": (("x", "--lora", "TEXT:much"), "much"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_a_sentence(
    home: Home, model: str, photo: Path, tmp_path: Path, case: str
) -> None:
    words, said = BAD[case]
    (tmp_path / "notes.txt").write_text("only words\n")
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "other.png")
    places = {"PHOTO": photo.name, "TEXT": "notes.txt", "OTHER": "other.png"}
    for name, place in places.items():
        words = tuple(word.replace(name, str(tmp_path / place)) for word in words)
    chosen = () if "--model" in words else ("--model", model)
    done = home.run("diffuse", *words, *chosen, check=False)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 6


def test_a_model_that_lacks_a_part_is_refused_at_once(home: Home, model: str) -> None:
    root = home.folder / "home/models"
    shutil.rmtree(shutil.copytree(root / model, root / "headless") / "unet")
    done = home.run("diffuse", "a red circle", "--model", "headless", check=False)
    assert done.returncode == 2
    assert "headless is incomplete: it has no unet/" in done.stderr
