"""``docs/tutorial.md`` runs as it stands, on small models that are called as its own are."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx_lm
import pytest

from tests.unit.language.original_cases import CASES, release_weights
from tests.unit.language.release_files import split, write_release

if TYPE_CHECKING:
    from tests.acceptance.conftest import STUDIOQ, Home
else:
    from tests.acceptance.conftest import STUDIOQ

    Home = Any

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^<!-- tutorial -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROWS = 32_000  # tokens of Mistral's vocabulary v1
QUESTION = "Q: What is terrence ross' nationality\nA: "
OPENING = "It is a truth universally acknowledged,"


@pytest.fixture(scope="module")
def place(
    home: Home, tokenizer_files: dict[str, Path], sql_rows: Path, tmp_path_factory: Any
) -> Path:
    """A folder with rows, beside a home with two releases as their publishers ship them."""
    models = home.folder / "home" / "models"
    for name, like, shards in (("llama-7b", "llama", 2), ("mistral-7b-v0.1", "mistral", 1)):
        sizes = {"dim": 128, "hidden_dim": 192, "vocab_size": -1}
        case = replace(CASES[like], params=CASES[like].params | sizes, hidden=192)
        weights = split(release_weights(case, ROWS), shards)
        folder = write_release(models / name, like, weights, **sizes)
        shutil.copy(tokenizer_files["v1"], folder / "tokenizer.model")
    folder = Path(tmp_path_factory.mktemp("tutorial"))
    shutil.copytree(sql_rows, folder / "wikisql")
    return folder


@pytest.fixture(scope="module")
def told(home: Home, place: Path) -> str:
    """What a shell prints that runs every command of the tutorial, one after another."""
    blocks = BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))
    assert len(blocks) == TUTORIAL.read_text(encoding="utf-8").count("```sh\n")
    path = f"{STUDIOQ.parent}{os.pathsep}{home.environment['PATH']}"
    small = {"ITERS": "12", "BENCH": "--quick", "USER": user(), "PATH": path}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(blocks)],
        env=home.environment | small,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{home.tails()}"
    return done.stdout


def user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def jobs(home: Home, kind: str) -> list[Any]:
    """Return every job of a kind, the first one first."""
    listed = home.json("list", "--all", "--kind", kind, "--limit", "100")["jobs"]
    return sorted((home.job(job["id"]) for job in listed), key=lambda job: job["id"])


def test_the_commands_print_what_the_examples_printed(told: str) -> None:
    for line in ("Trainable parameters", "Iter 1: Val loss", "Iter 10: Train loss", "Test loss"):
        assert line in told


def test_every_job_succeeds(home: Home, told: str) -> None:
    found = [job for kind in ("train", "infer", "convert", "diffuse") for job in jobs(home, kind)]
    assert len(found) > 10
    assert {job["state"] for job in found} == {"succeeded"}


def test_the_training_is_the_tutorial_s(home: Home, told: str) -> None:
    spec = next(job for job in jobs(home, "train") if job["name"] == "wikisql")["spec"]
    assert (spec["rank"], spec["scale"], spec["num_layers"]) == (8, 2.0, 16)
    assert (spec["batch_size"], spec["learning_rate"]) == (4, 1e-5)
    assert spec["keys"] == ["q_proj", "v_proj"]


def test_prompts_keep_their_trailing_space(home: Home, told: str) -> None:
    prompts = [job["spec"]["prompt"] for job in jobs(home, "infer")]
    assert sum(prompt.endswith(QUESTION) for prompt in prompts) == 3
    assert prompts.count(OPENING) == 2


def test_the_converted_models_are_mlx_lm_s(home: Home, told: str, place: Path) -> None:
    root = home.folder / "home" / "models" / user()
    _, tokenizer, config = mlx_lm.load(str(root / "mistral-4bit"), return_config=True)
    assert config["quantization"]["bits"] == 4
    assert tokenizer.decode(tokenizer.encode(OPENING, add_special_tokens=False)) == OPENING
    mlx_lm.load(str(root / "llama-sql"))
    fetched = next((place / "mistral-4bit").rglob("model.safetensors"))
    assert fetched.read_bytes() == (root / "mistral-4bit" / "model.safetensors").read_bytes()


def test_the_bench_saves_its_figures(told: str, place: Path) -> None:
    assert json.loads((place / "bench.json").read_bytes())
    assert (place / "bench.png").stat().st_size > 10_000
