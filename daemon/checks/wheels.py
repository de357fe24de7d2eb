"""Why pip finds an MLX here or answers "No matching distribution found for mlx".

The tables were read from the file names of mlx 0.0.2 to 0.32.4 on PyPI. A wheel's name states the
Python, the system and the processor it is for, and pip's message states none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.checks import ERROR, Finding, error, note, ok, warning
from daemon.checks.machine import Machine, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

NEWEST = "0.32.4"
STUDIOQ_MLX = "0.32"
STUDIOQ_PYTHON = (3, 11)
WHEEL_PYTHON = (3, 15)
MACOS_13_MLX = "0.29.3"
GLIBC = (2, 35)

# pip before 20.3 knows neither macosx_11 and later nor manylinux_2_35; pip before 24.1 believes a
# Python that was built for macOS 10 and so sees macOS 10.16.
PIP = (20, 3)
PIP_COMPAT = (24, 1)

NEW_ENVIRONMENT = "python3.12 -m venv ~/studioq-venv && ~/studioq-venv/bin/python -m pip install ."
GET_PYTHON = {
    "Darwin": "brew install python@3.12 (the Homebrew in /opt/homebrew), or python.org's installer",
    "Linux": "install Python 3.12 with the system's package manager",
}


def processor(machine: Machine) -> Finding:
    """Judge the processor that this Python was built for."""
    name = "processor"
    if machine.system not in GET_PYTHON:
        return error(name, machine.system, "studioq runs on macOS and Linux")
    if machine.bits < 64:
        return error(name, f"{machine.bits}-bit Python", "install a 64-bit Python and use that")
    if machine.system == "Darwin":
        return _mac_processor(machine)
    if machine.arch not in {"x86_64", "aarch64"}:
        return error(name, f"Linux on {machine.arch}", "MLX has wheels for x86_64 and aarch64 only")
    return ok(name, _described(machine))


def _mac_processor(machine: Machine) -> Finding:
    if machine.arch == "arm64":
        return ok("processor", f"{_described(machine)}, native")
    if not (machine.translated or machine.apple_silicon):
        return error(
            "processor",
            f"Intel Mac ({_described(machine)})",
            "MLX needs Apple silicon; log in to such a Mac over SSH and submit there",
        )
    remedy = f"install an arm64 Python: {GET_PYTHON['Darwin']}; then {NEW_ENVIRONMENT}"
    if machine.universal:
        remedy = (
            "this Python has an arm64 half: turn off Open using Rosetta in the Terminal's Get Info "
            "or start it with `arch -arm64 python3`, and make the virtual environment anew"
        )
    return error("processor", "x86_64 Python under Rosetta on Apple silicon", remedy)


def _described(machine: Machine) -> str:
    return f"{machine.arch}, {machine.chip}" if machine.chip else machine.arch


def system(machine: Machine) -> Finding:
    """Judge the operating system's version."""
    return _macos(machine) if machine.system == "Darwin" else _linux(machine)


def _macos(machine: Machine) -> Finding:
    if not machine.macos:
        return note("system", "macOS of unknown version", "MLX needs macOS 14; see sw_vers")
    found = f"macOS {dotted(machine.macos)}"
    if machine.macos >= (14,):
        return ok("system", f"{found} (mlx up to {NEWEST} and perhaps newer)")
    if machine.macos >= (13,):
        return error(
            "system",
            f"{found}: the newest mlx for it is {MACOS_13_MLX}, and studioq needs {STUDIOQ_MLX}, "
            "which needs macOS 14",
            "upgrade to macOS 14 or later",
        )
    return error("system", f"{found}: no mlx runs on it", "upgrade to macOS 14 or later")


def _linux(machine: Machine) -> Finding:
    library = f"{machine.libc or 'unknown C library'} {dotted(machine.libc_version)}".strip()
    found = f"{machine.system}, {library}"
    distribution = "a distribution or container with glibc 2.35: Debian 12, Ubuntu 22.04, RHEL 10"
    if machine.libc == "musl":
        return error("system", f"{found}: MLX's wheels are for glibc", f"use {distribution}")
    if machine.libc == "glibc" and machine.libc_version < GLIBC:
        return error("system", f"{found} is too old: MLX's wheels need 2.35", f"use {distribution}")
    if not machine.libc:
        return note("system", found, f"MLX needs {distribution}")
    return ok("system", found)


def python(machine: Machine) -> Finding:
    """Judge this Python's version and kind."""
    found = f"{machine.implementation} {dotted(machine.python)}"
    get = f"{GET_PYTHON.get(machine.system, 'install Python 3.12')}; then {NEW_ENVIRONMENT}"
    if machine.implementation != "CPython":
        return error("python", f"{found}: MLX's wheels are for CPython", get)
    if machine.python < STUDIOQ_PYTHON:
        return error("python", f"{found} is too old: studioq needs 3.11", get)
    if machine.python[:2] > WHEEL_PYTHON:
        return error(
            "python",
            f"{found} is too new: mlx {NEWEST} has wheels up to Python {dotted(WHEEL_PYTHON)}",
            get,
        )
    return ok("python", found)


def pip(machine: Machine) -> Finding:
    """Judge whether pip can read the names of MLX's wheels."""
    upgrade = "python3 -m pip install --upgrade pip"
    if machine.pip is None:
        return warning(
            "pip",
            "missing",
            "python3 -m ensurepip (Debian, Ubuntu: apt install python3-venv); uv does without",
        )
    found = dotted(machine.pip)
    if machine.pip < PIP:
        return error("pip", f"{found} cannot read the names of MLX's wheels", upgrade)
    if _sees_ten(machine) and machine.pip < PIP_COMPAT:
        seen = f"macOS {dotted(machine.macos)} for {dotted(machine.python_macos)}"
        return error("pip", f"{found} takes {seen}", f"SYSTEM_VERSION_COMPAT=0 {upgrade}")
    return ok("pip", found)


def _sees_ten(machine: Machine) -> bool:
    return machine.python_macos[:1] == (10,) and machine.macos >= (11,)


def environment(machine: Machine) -> Finding:
    """Judge where pip would install."""
    if machine.venv:
        return ok("environment", "virtual environment")
    create = "python3 -m venv ~/studioq-venv && . ~/studioq-venv/bin/activate"
    if machine.externally_managed:
        return note("environment", "the system's Python, where pip refuses to install", create)
    return note("environment", "no virtual environment: its packages are for everything", create)


def wheel(machine: Machine) -> Iterator[Finding]:
    """Say what pip would answer to ``pip install mlx``, and because of which findings."""
    judged = [processor(machine), system(machine), python(machine), pip(machine)]
    causes = ", ".join(finding.name for finding in judged if finding.status == ERROR)
    if causes:
        yield note(
            "mlx wheel",
            f'none: pip says "No matching distribution found for mlx" because of {causes}',
            "mend that first; docs/doctor.md tells the whole story",
        )
    else:
        yield ok("mlx wheel", f"mlx {NEWEST} has one for this Python")


def facts(machine: Machine) -> Iterator[Finding]:
    """Yield what this Python and its surroundings are."""
    yield python(machine)
    yield pip(machine)
    yield environment(machine)
