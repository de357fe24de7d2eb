"""The demo as a process: it ends what it started, whatever happens.

The tiny random model stands in for SmolLM2 under its name, so the adapter cannot learn SQL: the
demo must say so. That it does learn with the real model is for the acceptance tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

STUDIOQ = Path(sys.executable).with_name("studioq")
PATIENCE = 240


@pytest.fixture
def folder(tiny_model: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="sqd", dir="/tmp"))
    shutil.copytree(tiny_model, made / "own" / "models" / "smollm2")
    yield made
    shutil.rmtree(made)


def begin(folder: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "STUDIOQ_HOME": str(folder / "own"),
        "STUDIOQ_RUNTIME": str(folder / "run"),
        "STUDIOQ_LOCKS": str(folder / "gpu"),
        "STUDIOQ_SYSTEM_CONFIG": str(folder / "none"),
    }
    environment.pop("STUDIOQ_SOCKET", None)
    return subprocess.Popen(
        [STUDIOQ, "demo", "--home", str(folder / "demo")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_running(folder: Path) -> list[str]:
    """Return the processes whose environment or command names the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            named = str(folder) in " ".join([*process.cmdline(), *process.environ().values()])
            if named and process.status() != psutil.STATUS_ZOMBIE:
                found.append(str(process))
        except psutil.Error:
            continue
    return found


def test_a_demo_whose_model_does_not_learn_says_so_and_leaves_nothing(folder: Path) -> None:
    out, err = begin(folder).communicate(timeout=PATIENCE)
    assert "the demo failed: with the adapter the answer should be SELECT" in err, err
    assert "training loss" in out
    assert "validation loss" in out
    picture, results = sorted((folder / "demo" / "results").iterdir())
    assert f"image-0000.png    {picture / 'image-0000.png'}" in out
    assert [path.name for path in picture.iterdir()] == ["image-0000.png"]
    assert {"loss.png", "adapters.safetensors"} <= {path.name for path in results.iterdir()}
    assert json.loads((results / "adapter_config.json").read_text())
    assert left_running(folder) == []


def test_a_second_demo_in_the_same_home_keeps_the_first_ones_results(folder: Path) -> None:
    for _ in range(2):
        begin(folder).communicate(timeout=PATIENCE)
    assert len(list((folder / "demo" / "results").iterdir())) == 4


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupted_demo_leaves_nothing(folder: Path, name: str) -> None:
    process = begin(folder)
    assert process.stderr is not None
    while "queued: picture" not in (line := process.stderr.readline()):
        assert line, "the demo ended early"
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; the demo's processes have ended" in err
    assert left_running(folder) == []
