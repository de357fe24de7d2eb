"""What other programs say about the same model: llama-bench's JSON, and the PyTorch child's lines.

``llama_bench.json`` is the output of ``llama-bench -o json`` that llama.cpp documents
(tools/llama-bench/README.md, "JSON", build 8cf427ff), as it stands there.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from daemon.bench import llama, rival
from daemon.bench.plan import diffusion_request

SAMPLE = Path(__file__).with_name("llama_bench.json").read_text(encoding="utf-8")


def test_the_documented_json_of_llama_bench_is_read() -> None:
    run = llama.parse(SAMPLE)
    assert run.figure.key == llama.KEY
    assert run.figure.values == (119.03, 120.178, 119.43, 118.307, 117.464)
    assert sum(run.figure.values) / 5 == pytest.approx(118.881588, rel=1e-5)
    assert (run.build, run.backends) == ("8cf427ff (5163)", "CUDA")


def altered(**fields: Any) -> str:
    tests = json.loads(SAMPLE)
    tests[1] |= fields
    return json.dumps(tests)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "error: failed to load model",
        "[]",
        "{}",
        "[1]",
        altered(n_gen=0),
        altered(samples_ts=[]),
        altered(samples_ts=["many"]),
        altered(samples_ts=[0.0]),
        altered(samples_ts=None),
    ],
)
def test_what_is_not_understood_is_an_error_and_no_number(text: str) -> None:
    with pytest.raises(llama.LlamaBenchError, match="no test of text generation") as caught:
        llama.parse(text)
    assert caught.value.remedy


def test_the_file_of_a_gguf_model_is_found(tmp_path: Path) -> None:
    model = {"format": "gguf", "path": str(tmp_path)}
    assert llama.find_file(model) is None
    (tmp_path / "a.gguf").touch()
    assert llama.find_file(model) == tmp_path / "a.gguf"
    assert llama.find_file(model | {"path": str(tmp_path / "a.gguf")}) == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").touch()
    assert llama.find_file(model) is None
    assert llama.find_file(model | {"format": "hf"}) is None
    assert llama.find_file(None) is None


def test_a_missing_llama_bench_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert llama.find_program() is None
    with pytest.raises(llama.LlamaBenchError, match="no llama-bench on the PATH"):
        llama.run(tmp_path / "a.gguf", tokens=4, repeats=1)


def answer(batch: int, **fields: Any) -> str:
    facts = {"device": "cpu", "dtype": "float32", "versions": {"torch": "2.13.0"}}
    return json.dumps({"batch": batch, **fields, **(facts if "seconds" in fields else {})})


def test_the_childs_lines_become_figures() -> None:
    lines = [
        "a warning",
        answer(1, seconds=[5.0, 6.0], denoising=[4.0, 5.0]),
        answer(2, seconds=[8.0, 9.0], denoising=[7.0, 8.0]),
        answer(4, error="OutOfMemoryError: no room"),
    ]
    found = rival.read("\n".join(lines), steps=20)
    values = {figure.key: figure.values for figure in found.figures}
    assert values["torch.seconds_per_picture@2"] == (4.0, 4.5)
    assert values["torch.step_pictures_per_sec@2"] == (2 * 20 / 7.0, 2 * 20 / 8.0)
    assert found.notes == ("PyTorch at batch 4: OutOfMemoryError: no room",)
    assert found.facts == {"device": "cpu", "dtype": "float32", "versions": {"torch": "2.13.0"}}


def test_a_child_that_fails_costs_its_own_cells(tmp_path: Path) -> None:
    request = {**diffusion_request(), "cfg": 7.5, "steps": 2, "repeats": 1}
    found = rival.run(tmp_path / "nothing", request=request, batches=[1])
    assert found.figures == ()
    assert found.facts is None
    (note,) = found.notes
    assert note.startswith("PyTorch failed: ")


@pytest.mark.skipif(rival.missing() is not None, reason="PyTorch is no dependency of studioq")
def test_pytorch_measures_the_shipped_model() -> None:
    folder = Path(llama.__file__).parents[1] / "shipped_models" / "shapes"
    request = {**diffusion_request(), "cfg": 7.5, "steps": 2, "repeats": 1}
    found = rival.run(folder, request=request, batches=[1], python=sys.executable)
    assert [figure.key for figure in found.figures] == [
        "torch.seconds_per_picture@1",
        "torch.step_pictures_per_sec@1",
    ]


def test_a_missing_package_is_named() -> None:
    lacking = rival.missing() or ""
    assert ("torch" in lacking) is (find_spec("torch") is None)
