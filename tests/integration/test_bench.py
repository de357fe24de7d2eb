"""``studioq bench`` against a real daemon, with tiny models whose numbers mean nothing.

What is checked is the road from jobs to tables, files and exit codes; what it says about speeds is
in the unit tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.unit.diffusion import kept, tiny

STUDIOQ = Path(sys.executable).with_name("studioq")
PATIENCE = 120
ENDED = {"succeeded", "failed", "cancelled"}
MODELS = ("--model", "tiny", "--image-model", "brush")
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Home:
    """A home without a daemon at first, and the commands on it."""

    folder: Path
    environment: dict[str, str] = field(repr=False)

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        with self.begin(*words) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def begin(self, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [STUDIOQ, *map(str, words)],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def jobs(self) -> list[Any]:
        """Every job, the first one first."""
        found: list[Any] = json.loads(self.run("list", "--limit", "200", "--json").stdout)["jobs"]
        return sorted(found, key=lambda job: job["id"])

    def ended(self) -> dict[int, str]:
        """The states of all jobs but held ones, once these have ended."""
        waiting = [str(job["id"]) for job in self.jobs() if job["state"] != "held"]
        self.run("wait", *waiting, "--timeout", f"{PATIENCE}s")
        return {job["id"]: job["state"] for job in self.jobs()}


@pytest.fixture(scope="module")
def home(tiny_model: Path) -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="sqb", dir="/tmp"))
    models = folder / "home/models"
    shutil.copytree(tiny_model, models / "tiny")
    write_image_model(models / "brush")
    weights = load_file(shutil.copytree(models / "brush", models / "broken") / VAE)
    weights["decoder.conv_out.bias"][:] = np.nan
    save_file(weights, models / "broken" / VAE)
    environment = {
        **os.environ,
        "STUDIOQ_HOME": str(folder / "home"),
        "STUDIOQ_RUNTIME": str(folder / "run"),
        "STUDIOQ_LOCKS": str(folder / "gpu"),
        "STUDIOQ_SYSTEM_CONFIG": str(folder / "none"),
    }
    environment.pop("STUDIOQ_SOCKET", None)
    made = Home(folder=folder, environment=environment)
    yield made
    made.run("daemon", "stop")
    shutil.rmtree(folder)


def write_image_model(folder: Path) -> None:
    """Write an image model of one block to a side."""
    tiny.write_folder(folder, kept.PLACE / "folders/sd1", kept.shapes())
    network = kept.networks()["unet/one-block"]
    (folder / "unet/config.json").write_text(json.dumps(network["config"]))
    save_file(tiny.weights("unet/one-block", network["parameters"]), folder / UNET)


@pytest.fixture(scope="module")
def run(home: Home) -> subprocess.CompletedProcess[str]:
    """A quick run of all three tables, which has to start the daemon first."""
    files = ("--save", "run.json", "--plot", "run.png", "--compare", "tutorial")
    done = home.run("bench", "--quick", *MODELS, *files)
    assert done.returncode == 0, done.stderr
    return done


def kept_run(home: Home) -> Any:
    return json.loads((home.folder / "run.json").read_text())


def test_the_three_tables_stand_on_stdout(run: subprocess.CompletedProcess[str]) -> None:
    lines = run.stdout.splitlines()
    assert sum(line.startswith("this machine") for line in lines) == 2
    for title in ("LoRA training", "Decoding", "Pictures by batch size"):
        assert any(line.startswith(f"{title}") for line in lines)
    assert "! the tutorial's M2 Max: 30 tok/s is above the ceiling of 28.13" in run.stdout
    assert "Compared with the tutorial's M2 Ultra" in run.stdout
    assert "differs: train, model: Llama 7B → tiny" in run.stdout


def test_the_jobs_are_ordinary_ones_with_a_name(
    home: Home, run: subprocess.CompletedProcess[str]
) -> None:
    jobs = home.jobs()
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert [job["name"] for job in jobs] == [
        "bench train, warm-up",
        "bench infer, warm-up",
        "bench diffuse at batch 1, warm-up",
        "bench train, 1 of 1",
        "bench infer, 1 of 1",
        "bench diffuse at batch 1, 1 of 1",
        "bench diffuse at batch 2, warm-up",
        "bench diffuse at batch 2, 1 of 1",
    ]
    assert "starting a daemon" in run.stderr


def test_the_file_has_each_jobs_number_and_what_it_was_measured_with(
    home: Home, run: subprocess.CompletedProcess[str]
) -> None:
    record = kept_run(home)
    machine, results = record["machine"], {each["table"]: each for each in record["results"]}
    assert (record["schema"], record["quick"]) == (1, True)
    assert machine["kind"] == "cpu"
    assert machine["bandwidth_source"] == "measured"
    assert machine["bandwidth"] > 1e8
    assert {"mlx", "mlx-lm", "python"} <= set(machine["versions"])
    figures = {each["key"]: each for result in results.values() for each in result["figures"]}
    assert figures["train.tokens_per_sec"]["jobs"] == [4]
    assert figures["infer.tokens_per_sec"]["jobs"] == [5]
    assert figures["diffuse.seconds_per_picture@2"]["jobs"] == [8]
    assert all(value > 0 for each in figures.values() for value in each["values"])
    facts = results["infer"]["facts"]
    assert facts["decode_weight_bytes"] == facts["model_bytes"] > 0
    assert results["train"]["settings"]["keys"] == ["q_proj", "v_proj"]


def test_the_picture_is_drawn(home: Home, run: subprocess.CompletedProcess[str]) -> None:
    with Image.open(home.folder / "run.png") as image:
        assert min(image.size) > 400


def test_a_later_run_is_compared_and_neither_file_is_replaced(
    home: Home, run: subprocess.CompletedProcess[str]
) -> None:
    done = home.run("bench", "infer", "--quick", *MODELS, "--compare", "run.json")
    assert done.returncode == 0, done.stderr
    assert "LoRA" not in done.stdout
    assert f"Compared with run.json of {kept_run(home)['date']}" in done.stdout
    assert "infer.tokens_per_sec" in done.stdout
    assert "differs: " not in done.stdout
    before = (home.folder / "run.json").read_bytes()
    refused = home.run("bench", "infer", "--quick", *MODELS, "--save", "run.json")
    assert refused.returncode == 2
    assert "run.json is there already" in refused.stderr
    assert (home.folder / "run.json").read_bytes() == before


def test_a_failed_job_is_told_and_the_other_table_stands(home: Home) -> None:
    models = ("--model", "tiny", "--image-model", "broken")
    done = home.run("bench", "infer", "diffuse", "--quick", *models, "--json")
    assert done.returncode == 1
    infer, diffuse = json.loads(done.stdout)["results"]
    assert infer["failures"] == []
    assert diffuse["figures"] == []
    assert "is not a picture" in diffuse["failures"][0]
    assert "is not a picture" in done.stderr


def test_a_model_of_the_wrong_kind_is_refused_before_anything_is_queued(home: Home) -> None:
    before = home.jobs()
    done = home.run("bench", "--quick", "--model", "tiny", "--image-model", "tiny")
    assert done.returncode == 2
    assert "tiny is a language model, and --image-model needs an image model" in done.stderr
    assert "remedy: name an image model: br" in done.stderr
    done = home.run("bench", "infer", "--quick", "--model", "brush")
    assert done.returncode == 2
    assert "brush is an image model, and --model needs a language model" in done.stderr
    assert home.jobs() == before


def test_a_model_that_the_daemon_refuses_leaves_no_job_waiting(home: Home) -> None:
    done = home.run("bench", "--quick", "--model", "tiny", "--image-model", "absent")
    assert done.returncode == 2
    assert "absent" in done.stderr
    assert "Traceback" not in done.stderr
    assert set(home.ended().values()) <= ENDED


def told_cancelled(text: str) -> tuple[list[int], list[int]]:
    """The jobs of which stderr says that they are cancelled, and that they are being so."""
    gone = re.findall(r"^studioq: cancelled: jobs? ([\d ]+)$", text, re.MULTILINE)
    going = re.findall(r"^studioq: jobs? ([\d ]+) (?:is|are) being cancelled", text, re.MULTILINE)
    numbers = [[int(word) for line in lines for word in line.split()] for lines in (gone, going)]
    return numbers[0], numbers[1]


def test_an_interrupted_benchmark_cancels_its_own_jobs_alone(home: Home) -> None:
    held = home.run("infer", "--model", "tiny", "--prompt", "Hi", "--hold").stdout.strip()
    process = home.begin("bench", "train", "--repeats", "9", "--model", "tiny")
    assert process.stderr is not None
    while "bench train, 1 of 9" not in (line := process.stderr.readline()):
        assert line, "the benchmark ended early"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert "interrupted; nothing is kept of this run" in err
    gone, going = told_cancelled(err)
    now = {job["id"]: job["state"] for job in home.jobs()}
    assert gone
    assert {now[number] for number in gone} == {"cancelled"}
    assert now.keys() - {number for number, state in now.items() if state in ENDED} <= {
        *going,
        int(held),
    }
    states = home.ended()
    assert states.pop(int(held)) == "held"
    assert set(states.values()) <= ENDED
    assert "cancelled" in states.values()
