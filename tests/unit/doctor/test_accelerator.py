"""MLX as it is installed, and what surrounds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.checks import accelerator, surroundings
from daemon.checks.machine import Machine

GIB = 2**30
MAC = Machine(system="Darwin", arch="arm64", python=(3, 12, 4), memory=64 * GIB)
LINUX = Machine(system="Linux", arch="x86_64", python=(3, 11, 7), memory=16 * GIB)


def test_mlx_imports_here_and_names_its_device() -> None:
    first = next(iter(accelerator.mlx(Machine.current())))
    assert first.status in {"ok", "note"}
    assert " on the " in first.found


def test_mlx_without_a_backend_is_recognised() -> None:
    stderr = "ImportError: libmlx.so: cannot open shared object file: No such file or directory\n"
    finding = accelerator.failed_import(LINUX, 1, stderr)
    assert finding.status == "error"
    assert 'install "mlx[cpu]"' in str(finding.remedy)
    other = accelerator.failed_import(replace(LINUX, nvidia=True), 1, stderr)
    assert 'install "mlx[cuda13]"' in str(other.remedy)


def test_an_aborted_import_names_the_signal() -> None:
    finding = accelerator.failed_import(MAC, -6, "terminating due to uncaught exception\n")
    assert "SIGABRT" in finding.found


def test_two_backends_overwrite_each_other() -> None:
    assert not list(accelerator.judge_backends(["mlx-cpu"]))
    (finding,) = accelerator.judge_backends(["mlx-cpu", "mlx-cuda-13"])
    assert finding.status == "warning"
    assert "uninstall -y mlx-cpu" in str(finding.remedy)
    assert str(finding.remedy).endswith("--no-deps mlx-cuda-13")


def test_memory_limit_is_told_beside_the_physical_memory() -> None:
    info = {
        "device_name": "Apple M2 Ultra",
        "max_recommended_working_set_size": 48 * GIB,
        "memory_size": 64 * GIB,
    }
    answer = {"version": "0.32.4", "gpu": True, "info": info}
    found = [finding.found for finding in accelerator.judge(MAC, answer)]
    assert found == [
        "0.32.4 on the GPU, Apple M2 Ultra",
        "48.0 GiB of 64.0 GiB (75 %) recommended",
    ]


def test_a_mac_without_metal_and_an_unused_nvidia_gpu_are_told() -> None:
    answer: dict[str, Any] = {"version": "0.32.4", "gpu": False, "info": {}}
    assert [f.status for f in accelerator.judge(MAC, answer)] == ["error"]
    assert [f.status for f in accelerator.judge(replace(LINUX, nvidia=True), answer)] == ["note"]


def test_an_openblas_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    library = tmp_path / "cmeel.prefix" / "lib" / "libopenblas.so.0"
    library.parent.mkdir(parents=True)
    library.touch()
    finding = accelerator.openblas([tmp_path])
    assert (finding.name, finding.status) == ("openblas", "warning")
    assert str(library) in finding.found
    assert accelerator.openblas([]).status == "warning"


@pytest.mark.parametrize(
    ("status", "stderr", "verdict", "remedy"),
    [
        (0, "", "ok", "None"),
        (-4, "", "warning", "AVX-512"),
        (1, "OSError: libgfortran.so.5: cannot open shared object file", "note", "libgfortran5"),
    ],
)
def test_openblas_must_multiply(status: int, stderr: str, verdict: str, remedy: str) -> None:
    finding = accelerator.judge_openblas(Path("/lib/libopenblas.so"), status, stderr)
    assert finding.status == verdict
    assert remedy in str(finding.remedy)


def test_little_memory_is_a_warning() -> None:
    assert [f.status for f in surroundings.memory(replace(MAC, memory=4 * GIB))] == ["warning"]
    assert [f.found for f in surroundings.memory(MAC)] == ["64.0 GiB"]


def test_the_display_watchdog_is_macs_alone() -> None:
    assert [f.name for f in surroundings.display(MAC)] == ["display"]
    assert not list(surroundings.display(LINUX))


def test_python_daemon_clashes() -> None:
    assert surroundings.judge_owners({"studioq"}).status == "ok"
    finding = surroundings.judge_owners({"studioq", "python-daemon"})
    assert finding.status == "warning"
    assert "python-daemon" in finding.found
    assert [f.status for f in surroundings.name_clash()] == ["ok"]
