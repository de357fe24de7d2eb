"""Publishers' releases and npz models in jobs: what they answer and learn is what the same model
does as a Hugging Face folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from daemon.specs import InferSpec, TrainSpec
from tests.unit.language.original_cases import CASES, known_config, known_weights, release_weights
from tests.unit.language.release_files import split, write_npz, write_release
from workers import infer, train
from workers.kinds import Context, Control
from workers.models import ModelCache

CASE = "mistral"
ROWS = 32_768  # tokens of Mistral's vocabulary v3
FILE = {"name": "rows.jsonl", "sha256": "0" * 64}


def known_folder(folder: Path) -> Path:
    folder.mkdir()
    config = known_config(CASES[CASE]) | {"vocab_size": ROWS, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {name: mx.array(array) for name, array in known_weights(CASES[CASE], ROWS).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def release_folder(folder: Path) -> Path:
    return write_release(folder, CASE, split(release_weights(CASES[CASE], ROWS), 2), vocab_size=-1)


def npz_folder(folder: Path) -> Path:
    write_npz(folder, CASE, vocab_size=ROWS)
    np.savez(folder / "weights.npz", **dict[str, Any](release_weights(CASES[CASE], ROWS)))
    return folder


FOLDERS = {"hf": known_folder, "release": release_folder, "npz": npz_folder}


@pytest.fixture(scope="module")
def folders(
    tokenizer_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One model in each format, with Mistral's own tokenizer."""
    root = tmp_path_factory.mktemp("models")
    found = {kind: write(root / kind) for kind, write in FOLDERS.items()}
    for folder in found.values():
        shutil.copy(tokenizer_files["v3"], folder / "tokenizer.model")
    return found


@pytest.fixture(scope="module")
def models() -> Iterator[ModelCache]:
    cache = ModelCache(2**30, lambda: 0.0)
    yield cache
    cache.clear()


@pytest.fixture
def context(models: ModelCache, tmp_path: Path) -> Callable[..., Context]:
    attempts = iter(range(1, 100))

    def make(spec: Any, model: Path, **parts: Any) -> Context:
        number = next(attempts)
        folder = tmp_path / f"attempt-{number}"
        folder.mkdir()
        return Context(
            job=1,
            attempt=number,
            spec=spec,
            folder=folder,
            models=models,
            model=model,
            control=Control(),
            **parts,
        )

    return make


def test_a_job_answers_alike_from_every_format(
    context: Callable[..., Context], folders: dict[str, Path]
) -> None:
    spec = InferSpec(model="m", prompt="Q: how many?\nA: ", raw=True, seed=1, max_tokens=12)
    answers = []
    for folder in folders.values():
        job = context(spec, folder, inputs={})
        list(infer.run(job))
        answers.append((job.folder / "output.txt").read_text(encoding="utf-8"))
    assert answers[0]
    assert len(set(answers)) == 1


def test_a_job_learns_alike_in_every_format_and_the_adapter_is_for_all(
    context: Callable[..., Context], folders: dict[str, Path], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"{n} cats"}) + "\n" for n in range(12)))
    settings = {"iters": 2, "batch_size": 2, "steps_per_eval": 2, "learning_rate": 0.01}
    spec = TrainSpec.model_validate({"model": "m", "data": {"rows": FILE}, "seed": 3, **settings})
    adapters = []
    for folder in folders.values():
        job = context(spec, folder, inputs={"data.rows": rows})
        list(train.run(job))
        adapters.append(job.folder)
    first, *others = (weights(folder) for folder in adapters)
    for other in others:
        for name, array in first.items():
            np.testing.assert_array_equal(other[name], array, name)
    ask = InferSpec(model="m", prompt="3", raw=True, seed=1, max_tokens=4)
    for folder in folders.values():
        job = context(ask, folder, inputs={}, adapter=adapters[1])
        list(infer.run(job))
        assert (job.folder / "output.txt").is_file()


def weights(folder: Path) -> dict[str, np.ndarray]:
    loaded: Any = mx.load(str(folder / "adapters.safetensors"))
    return {name: np.array(array) for name, array in tree_flatten(loaded)}
