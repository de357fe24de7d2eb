from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workers import memory_env
from workers.memory_env import engine_environment

LINUX_CPU = sys.platform == "linux" and not memory_env.cuda_installed()
linux_cpu = pytest.mark.skipif(not LINUX_CPU, reason="only MLX's CPU build needs an environment")

MULTIPLY = """
import json, mlx.core as mx
a = mx.arange(300 * 200, dtype=mx.float32).reshape(300, 200) / 1e4
b = mx.arange(200 * 100, dtype=mx.float32).reshape(200, 100) / 1e4
print(json.dumps([float((a @ b).sum()), open("/proc/self/maps").read().count("libopenblas")]))
"""


@linux_cpu
def test_the_engine_multiplies_with_openblas(run_fast: Callable[..., str]) -> None:
    total, mapped = json.loads(run_fast(MULTIPLY))
    expected = sum(
        sum((i * 200 + k) / 1e4 for i in range(300)) * sum((k * 100 + j) / 1e4 for j in range(100))
        for k in range(200)
    )
    assert abs(total / expected - 1) < 1e-4
    assert mapped > 0


@linux_cpu
def test_what_is_preloaded_already_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libm.so.6")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    found = engine_environment(tmp_path)
    assert found["LD_PRELOAD"].split(" ")[0] == "libm.so.6"
    assert found["LD_PRELOAD"].endswith("libopenblas.so")
    assert found["MLX_DISABLE_COMPILE"] == "1"


@linux_cpu
def test_a_library_that_cannot_be_preloaded_costs_speed_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "libopenblas.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(memory_env, "openblas", lambda: broken)
    found = engine_environment(tmp_path)
    assert "LD_PRELOAD" not in found
    assert found["MLX_DISABLE_COMPILE"] == "1"


@linux_cpu
def test_the_users_number_of_threads_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert engine_environment(tmp_path)["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.skipif(sys.platform != "darwin", reason="only on macOS")
def test_on_macos_nothing_is_needed(tmp_path: Path) -> None:
    assert engine_environment(tmp_path) == {}


def test_neither_it_nor_the_file_formats_import_mlx() -> None:
    code = (
        "import sys, workers.memory_env, workers.language.formats, workers.failures;"
        "print([name for name in sys.modules if name.split('.')[0] in ('mlx', 'mlx_lm')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    ).stdout
    assert output.strip() == "[]"


def test_with_cuda_the_engine_does_without_graphs_and_keeps_its_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_env, "cuda_installed", lambda: True)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("STUDIOQ_HOME", str(tmp_path))
    monkeypatch.delenv("MLX_PTX_CACHE_DIR", raising=False)
    monkeypatch.delenv("MLX_USE_CUDA_GRAPHS", raising=False)
    chosen = engine_environment()
    assert chosen == {
        "MLX_USE_CUDA_GRAPHS": "0",
        "MLX_PTX_CACHE_DIR": str(tmp_path / "kernels"),
    }
    monkeypatch.setenv("MLX_USE_CUDA_GRAPHS", "1")
    assert "MLX_USE_CUDA_GRAPHS" not in engine_environment()
