"""The facts about this machine and this Python that decide whether MLX can run here.

All of them are gathered once into a frozen value, so that every verdict is a function of that value
and can be tried for machines one does not have.
"""

from __future__ import annotations

import os
import platform
import re
import struct
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Tuple  # noqa: UP035 - evaluated at run time by Python 3.8

Version = Tuple[int, ...]  # noqa: UP006 - as above


@dataclass(frozen=True)
class Machine:
    """Hardware, operating system and Python, as this process sees them.

    ``arch`` is the processor this Python was built for; ``translated`` says that Rosetta runs it;
    ``apple_silicon`` is about the hardware. ``macos`` is the true version and ``python_macos`` the
    one Python sees (10.16 for old builds). ``libc`` is ``glibc``, ``musl`` or empty. ``memory`` is
    bytes. ``pip`` is None where pip is missing.
    """

    system: str
    arch: str
    python: Version
    translated: bool = False
    apple_silicon: bool = False
    universal: bool = False
    bits: int = 64
    chip: str = ""
    macos: Version = ()
    python_macos: Version = ()
    libc: str = ""
    libc_version: Version = ()
    implementation: str = "CPython"
    pip: Version | None = None
    venv: bool = False
    externally_managed: bool = False
    nvidia: bool = False
    memory: int = 0

    @classmethod
    def current(cls) -> Machine:
        """Return the machine this runs on."""
        libc, libc_version = _libc()
        return cls(
            system=platform.system(),
            arch=platform.machine(),
            python=tuple(sys.version_info[:3]),
            translated=_sysctl("sysctl.proc_translated") == "1",
            apple_silicon=_sysctl("hw.optional.arm64") == "1",
            universal=sysconfig.get_platform().endswith("universal2"),
            bits=struct.calcsize("P") * 8,
            chip=_chip(),
            macos=_macos(),
            python_macos=parse_version(platform.mac_ver()[0]),
            libc=libc,
            libc_version=libc_version,
            implementation=platform.python_implementation(),
            pip=_pip(),
            venv=sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ,
            externally_managed=Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists(),
            nvidia=Path("/proc/driver/nvidia/version").exists(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )


def parse_version(text: str) -> Version:
    """Return the leading numbers of a version: ``14.5.1`` is (14, 5, 1), nonsense is ()."""
    match = re.match(r"\d+(?:\.\d+)*", text.strip())
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def dotted(version: Version) -> str:
    """Return ``(3, 11)`` as ``3.11``."""
    return ".".join(str(part) for part in version)


def answer(*command: str, **environment: str) -> str:
    """Return what ``command`` prints, or nothing if it is missing or fails within ten seconds."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=10,
            check=True,
            env=dict(os.environ, **environment),
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def _sysctl(name: str) -> str:
    return answer("/usr/sbin/sysctl", "-n", name) if sys.platform == "darwin" else ""


def _macos() -> Version:
    """Return macOS's true version; without the variable old programs are told 10.16."""
    if sys.platform != "darwin":
        return ()
    return parse_version(answer("/usr/bin/sw_vers", "-productVersion", SYSTEM_VERSION_COMPAT="0"))


def _chip() -> str:
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string")
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else ""


def _libc() -> tuple[str, Version]:
    """Return the C library's name and version; glibc names itself, musl is known by its loader."""
    if platform.system() != "Linux":
        return "", ()
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if name == "glibc":
            return name, parse_version(version)
    except (ValueError, OSError):
        pass
    return ("musl" if list(Path("/lib").glob("ld-musl-*")) else ""), ()


def _pip() -> Version | None:
    try:
        return parse_version(metadata.version("pip"))
    except metadata.PackageNotFoundError:
        return None
