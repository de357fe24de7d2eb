"""Why there is a wheel of MLX for a machine, or none."""

from __future__ import annotations

import os
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.checks import Finding, machine, wheels
from daemon.checks.machine import Machine, parse_version

GIB = 2**30
ROOT = Path(__file__).parents[3]
MAC = Machine(
    system="Darwin",
    arch="arm64",
    python=(3, 12, 4),
    apple_silicon=True,
    chip="Apple M2 Ultra",
    macos=(14, 5),
    python_macos=(14, 5),
    pip=(24, 2),
    venv=True,
    memory=64 * GIB,
)
ROSETTA = replace(MAC, arch="x86_64", translated=True)
LINUX = Machine(
    system="Linux",
    arch="x86_64",
    python=(3, 11, 7),
    libc="glibc",
    libc_version=(2, 36),
    pip=(23, 0, 1),
    memory=16 * GIB,
)


def judged(subject: Machine) -> dict[str, Finding]:
    """Return the findings that decide about MLX's wheel, by name."""
    found = [wheels.processor(subject), wheels.system(subject), *wheels.facts(subject)]
    return {finding.name: finding for finding in [*found, *wheels.wheel(subject)]}


@pytest.mark.parametrize(
    "subject", [MAC, LINUX, replace(MAC, macos=(26, 1)), replace(LINUX, arch="aarch64")]
)
def test_a_good_machine_has_nothing_to_mend(subject: Machine) -> None:
    assert {f.status for f in judged(subject).values()} <= {"ok", "note"}
    assert judged(subject)["mlx wheel"].status == "ok"


@pytest.mark.parametrize(
    ("subject", "culprit", "found", "remedy"),
    [
        (ROSETTA, "processor", "under Rosetta", "install an arm64 Python"),
        (replace(ROSETTA, universal=True), "processor", "under Rosetta", "arch -arm64 python3"),
        (replace(MAC, arch="x86_64", apple_silicon=False), "processor", "Intel Mac", "over SSH"),
        (replace(MAC, macos=(12, 7)), "system", "macOS 12.7: no mlx", "macOS 14"),
        (replace(MAC, python=(3, 9, 6)), "python", "3.9.6 is too old", "brew install"),
        (replace(MAC, python=(3, 16, 0)), "python", "up to Python 3.15", "python3.12 -m venv"),
        (replace(MAC, macos=(13, 6)), "system", "macOS 13.6: the newest mlx", "macOS 14"),
        (replace(MAC, pip=(20, 2, 4)), "pip", "20.2.4 cannot read", "--upgrade pip"),
        (
            replace(MAC, python_macos=(10, 16), pip=(23, 2)),
            "pip",
            "23.2 takes macOS 14.5 for 10.16",
            "SYSTEM_VERSION_COMPAT=0",
        ),
        (replace(LINUX, libc="musl", libc_version=()), "system", "musl", "glibc 2.35"),
        (replace(LINUX, libc_version=(2, 31)), "system", "glibc 2.31 is too old", "Ubuntu 22.04"),
        (replace(LINUX, arch="i686", bits=32), "processor", "32-bit", "64-bit"),
        (replace(LINUX, arch="riscv64"), "processor", "riscv64", "x86_64 and aarch64"),
        (replace(LINUX, implementation="PyPy"), "python", "CPython", "Python 3.12"),
        (replace(LINUX, python=(3, 10, 12)), "python", "3.10.12 is too old", "python3.12"),
        (replace(LINUX, system="Windows"), "processor", "Windows", "macOS and Linux"),
    ],
)
def test_no_matching_distribution_is_explained(
    subject: Machine, culprit: str, found: str, remedy: str
) -> None:
    findings = judged(subject)
    assert [name for name, finding in findings.items() if finding.status == "error"] == [culprit]
    assert found in findings[culprit].found
    assert remedy in str(findings[culprit].remedy)
    assert "No matching distribution found for mlx" in findings["mlx wheel"].found
    assert findings["mlx wheel"].found.endswith(culprit)


def test_macos_13_is_told_that_its_newest_mlx_is_too_old() -> None:
    finding = judged(replace(MAC, macos=(13, 6)))["system"]
    assert finding.status == "error"
    assert "0.29.3" in finding.found
    assert "studioq needs 0.32" in finding.found
    assert "needs macOS 14" in finding.found


def test_the_mlx_that_the_doctor_names_is_the_one_that_the_package_requires() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"mlx>={wheels.STUDIOQ_MLX}; sys_platform == 'darwin'" in project["dependencies"]


def test_missing_pip_is_no_obstacle_for_uv() -> None:
    findings = judged(replace(LINUX, pip=None))
    assert findings["pip"].status == "warning"
    assert findings["mlx wheel"].status == "ok"


def test_the_systems_own_python_wants_an_environment() -> None:
    finding = wheels.environment(replace(LINUX, externally_managed=True))
    assert "pip refuses" in finding.found
    assert "-m venv" in str(finding.remedy)


@pytest.mark.parametrize(
    ("text", "version"), [("14.5.1", (14, 5, 1)), ("3.13.0rc1", (3, 13, 0)), ("", ()), ("x", ())]
)
def test_versions_are_their_leading_numbers(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_this_machine_is_described() -> None:
    here = Machine.current()
    assert here.python == sys.version_info[:3]
    assert here.memory > 0
    assert here.venv == (sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ)
    assert machine.answer("/nowhere/at-all") == ""
