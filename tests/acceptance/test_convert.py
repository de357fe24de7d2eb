"""Conversions through the command line: fused into the real model, killed, refused, removed."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx_lm
import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Home
else:
    Home = Any


def mine(name: str) -> str:
    return f"{pwd.getpwuid(os.getuid()).pw_name}/{name}"


@pytest.fixture(scope="module")
def adapter(home: Home, tiny: str, sql_rows: Path) -> Any:
    """A finished training of the tiny model."""
    words = ("--iters", "3", "--batch-size", "2", "--val-batches", "1", "--seed", "1")
    return home.wait(home.submit("train", "--model", tiny, "--data", sql_rows, *words))


def convert(home: Home, *words: str) -> Any:
    return home.wait(home.submit("convert", *words))


def test_a_fused_model_is_used_by_the_next_job(home: Home, tiny: str, adapter: Any) -> None:
    fused = home.submit("convert", tiny, "--to", "sql", "--fuse", f"job:{adapter['id']}")
    asked = ("--prompt", "table: a", "--raw", "--max-tokens", "6")
    home.wait(fused)
    answers = [
        home.run("infer", *words, *asked, "--follow").stdout
        for words in (
            ("--model", mine("sql")),
            ("--model", tiny, "--adapter", f"job:{adapter['id']}"),
        )
    ]
    assert answers[0] == answers[1] != ""
    model = home.json("models", "show", mine("sql"))
    assert model["state"] == "ready"


def test_a_conversion_s_model_can_be_fetched(home: Home, tiny: str, tmp_path: Path) -> None:
    job = convert(home, tiny, "--to", "four", "--quantize", "4", "--group-size", "32")
    assert job["state"] == "succeeded", home.tails()
    assert 4 < job["metrics"]["bits_per_weight"] < 8
    home.run("fetch", str(job["id"]), "--to", tmp_path / "four")
    folder = next((tmp_path / "four").rglob("config.json")).parent
    assert mlx_lm.load(str(folder), return_config=True)[2]["quantization"]["bits"] == 4


def test_a_repeated_conversion_is_the_same(home: Home, tiny: str) -> None:
    job = convert(home, tiny, "--to", "again", "--dtype", "bf16")
    again = home.wait(home.submit("repeat", str(job["id"])))
    assert again["state"] == "succeeded", home.tails()
    hashes = [
        {file["name"]: file["sha256"] for file in ended["artifacts"]} for ended in (job, again)
    ]
    assert hashes[0] == hashes[1] != {}


def test_a_conversion_survives_the_death_of_its_engine(home: Home, smollm2: Path) -> None:
    models = home.folder / "home" / "models"
    (models / "smollm2").mkdir(exist_ok=True)
    for file in (smollm2 if smollm2.is_dir() else smollm2.parent).glob("*.gguf"):
        if not (models / "smollm2" / file.name).exists():
            os.link(file, models / "smollm2" / file.name)
    number = home.submit("convert", "smollm2", "--to", "small", "--quantize", "8", "--dequantize")
    home.until(lambda: (home.job(number)["progress"]["done"] or 0) > 3)
    home.kill("engine")
    job = home.wait(number)
    assert job["state"] == "succeeded", home.tails()
    assert [attempt["state"] for attempt in job["attempts"]] == ["interrupted", "succeeded"]
    folder = models / mine("small")
    assert json.loads((folder / "config.json").read_bytes())["quantization"]["bits"] == 8
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_what_is_there_is_not_overwritten_and_can_be_removed(home: Home, tiny: str) -> None:
    convert(home, tiny, "--to", "once")
    refused = home.run("convert", tiny, "--to", "once", "--quantize", "4", check=False)
    assert refused.returncode == 2
    assert mine("once") in refused.stderr
    home.run("models", "rm", mine("once"), "--yes")
    assert mine("once") not in {model["name"] for model in home.json("models")["models"]}
    assert convert(home, tiny, "--to", "once")["state"] == "succeeded"


def test_a_quantized_source_is_refused_before_it_is_queued(home: Home, tiny: str) -> None:
    convert(home, tiny, "--to", "eight", "--quantize", "8")
    refused = home.run("convert", mine("eight"), "--to", "less", "--quantize", "4", check=False)
    assert refused.returncode == 2
    assert "--dequantize" in refused.stderr


def test_an_adapter_of_another_model_is_refused(home: Home, tiny: str, adapter: Any) -> None:
    other = home.folder / "home" / "models" / "other"
    shutil.copytree(home.folder / "home" / "models" / tiny, other)
    refused = home.run(
        "convert", "other", "--to", "x", "--fuse", f"job:{adapter['id']}", check=False
    )
    assert refused.returncode == 2
    assert "trains tiny" in refused.stderr
