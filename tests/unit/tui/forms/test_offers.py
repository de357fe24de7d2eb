"""Offers: models that fit, jobs, paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.tui.conftest import Studio
from tui.forms.material import read_known
from tui.forms.offers import MOST, Known, model_offers, path_offers, source_of
from tui.forms.shapes import Control


def model(name: str, form: str | None, **more: Any) -> dict[str, Any]:
    facts = {"state": "ready", "parameters": 135_000_000, "fits": "yes"}
    return {"name": name, "format": form, **facts, **more}


MODELS = [
    model("smollm2", "gguf"),
    model("shapes", "diffusers"),
    model("org/later", None, state="available", parameters=None, fits=None),
    model("broken", "hf", state="unusable"),
    model("large", "mlx", fits="no"),
]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("train", ["smollm2", "org/later", "large"]),
        ("diffuse", ["shapes", "org/later"]),
        ("something new", ["smollm2", "shapes", "org/later", "large"]),
    ],
)
def test_models_that_a_kind_can_use(kind: str, names: list[str]) -> None:
    assert [offer.text for offer in model_offers(MODELS, kind)] == names


def test_what_is_said_of_a_model() -> None:
    about = {offer.text: offer.about for offer in model_offers(MODELS, "infer")}
    assert about["smollm2"] == "gguf · 135M parameters"
    assert about["large"].endswith("does not fit")
    assert about["org/later"] == "available"


def test_those_that_begin_so_come_first() -> None:
    source = source_of(Control.MODEL, "", Known(models=MODELS))
    assert source is not None
    assert [offer.text for offer in source("l")] == ["large", "smollm2", "org/later"]


def test_jobs_of_a_real_studio(studio: Studio) -> None:
    done = studio.add(
        "train",
        name="minutes",
        spec={"model": "smollm2", "data": {"rows": {"name": "r.jsonl", "sha256": "a" * 64}}},
    )
    studio.start(done)
    studio.end(done)
    studio.add("noop")
    with studio.connect() as client:
        known = read_known(client)
    adapters = source_of(Control.ADAPTER, "infer", known)
    waits = source_of(Control.JOBS, "infer", known)
    assert adapters is not None
    assert waits is not None
    assert [offer.text for offer in adapters("")] == [f"job:{done}"]
    assert "minutes" in adapters("job:")[0].about
    assert [offer.text for offer in waits("")] == [str(done + 1), str(done)]
    assert [offer.text for offer in waits(f"{done}, ")] == [f"{done}, {done + 1}"]
    assert waits(f"{done};") == []


def test_paths_folders_first_and_hidden_ones_on_demand(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "minutes").mkdir()
    names = [offer.text.removeprefix(f"{tmp_path}/") for offer in path_offers(f"{tmp_path}/")]
    assert names == ["minutes/", "a.jsonl", "b.jsonl"]
    assert [offer.text for offer in path_offers(f"{tmp_path}/.h")] == [f"{tmp_path}/.hidden"]
    assert path_offers(f"{tmp_path}/nowhere/x") == []
    assert path_offers("\0/") == []
    assert path_offers("~nobody-of-this-name/") == []


def test_paths_below_the_home_and_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert [offer.text for offer in path_offers("~/r")] == ["~/rows.jsonl"]
    assert [offer.text for offer in path_offers("ro")] == ["rows.jsonl"]


def test_a_large_folder_gives_no_more_than_can_be_looked_at(tmp_path: Path) -> None:
    for number in range(MOST + 50):
        (tmp_path / f"{number}.png").touch()
    assert len(path_offers(f"{tmp_path}/")) == MOST
