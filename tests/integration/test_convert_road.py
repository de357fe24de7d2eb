"""The road of a converted model through the real daemon, worker and engine, from the command line.

Every job of it is submitted before the first one runs: each waits for what it is built on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_cli import Home, make_home

ROWS = "".join(json.dumps({"text": f"row {index} says so"}) + "\n" for index in range(24))
TRAIN = ["--iters", "4", "--num-layers", "2", "--steps-per-eval", "4", "--hold"]


@pytest.fixture(scope="module")
def home(tiny_model: Path) -> Iterator[Home]:
    made = make_home()
    shutil.copytree(tiny_model, made.folder / "home" / "models" / "tiny")
    (made.folder / "rows.jsonl").write_text(ROWS)
    yield made
    assert made.run("daemon", "stop").returncode == 0
    shutil.rmtree(made.folder)


def test_a_model_is_trained_fused_quantised_asked_and_fetched(home: Home) -> None:
    training = int(home.data("train", "--model", "tiny", "--data", "rows.jsonl", *TRAIN))
    fuse = ("--fuse", f"job:{training}", "--quantize", 4, "--group-size", 32)
    done = home.run("convert", "tiny", "--to", "small", *fuse)
    making, name = int(done.stdout), done.stderr.strip().rpartition(" ")[2]
    assert name.endswith("/small")
    asked = home.data("infer", "--model", name, "--prompt", "row", "--max-tokens", 2).strip()
    assert "writes that model" in home.run("convert", "tiny", "--to", "small").stderr
    assert home.run("release", training).returncode == 0

    assert home.run("wait", asked).returncode == 0

    folder = home.folder / "home" / "models" / name
    assert [entry.name for entry in folder.parent.iterdir()] == ["small"]
    home.data("fetch", making)
    for file in (home.folder / f"job-{making}" / "model").iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()
    again = home.run("repeat", making, "--wait")
    assert again.returncode == 0
    assert f"the outputs are identical to those of job {making}" in again.stderr
    refused = home.run("convert", name, "--to", "smaller", "--quantize", 2)
    assert refused.returncode == 2
    assert f"quantize = '2': {name} is already quantized with 4 bits" in refused.stderr
