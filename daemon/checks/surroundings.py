"""What surrounds the program: memory, limits, the display watchdog, packages of its name."""

from __future__ import annotations

import resource
from importlib import metadata
from typing import TYPE_CHECKING, Any

from daemon.checks import Finding, note, ok, size, warning
from daemon.checks.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_MEMORY = 8 * 2**30
OPEN_FILES = 1024


def memory(machine: Machine) -> Iterator[Finding]:
    """Judge the physical memory."""
    found = size(machine.memory)
    if machine.memory < LEAST_MEMORY:
        yield warning("memory", found, "use small or quantized models; 7B at 16 bits wants 16 GiB")
    else:
        yield ok("memory", found)


def open_files() -> Iterator[Finding]:
    """Judge the limit of open files: each waiting client holds one in the daemon."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        yield note("open files", f"at most {soft}", "ulimit -n 4096 before starting the daemon")
    else:
        yield ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}")


def display(machine: Machine) -> Iterator[Finding]:
    """Warn of macOS's watchdog, which ends GPU work that keeps the screen waiting."""
    if machine.system == "Darwin":
        yield note(
            "display",
            "while it is on, macOS may end GPU work that takes seconds at a time",
            "for long jobs let the display sleep (pmset displaysleepnow) or work over SSH",
        )


def name_clash() -> Iterator[Finding]:
    """Judge whether another distribution, such as python-daemon, brings a package ``daemon``."""
    lookup: Any = getattr(metadata, "packages_distributions", None)
    if lookup is None:
        yield note("name clash", "not checked: this needs Python 3.10")
        return
    yield judge_owners(set(lookup().get("daemon", ())))


def judge_owners(owners: set[str]) -> Finding:
    """Judge the distributions that bring a package ``daemon``."""
    others = sorted(owners - {"studioq"})
    if not others:
        return ok("name clash", "no other package is named daemon")
    return warning(
        "name clash",
        f"{', '.join(others)} brings a package daemon, too, and one of the two is overwritten",
        "install studioq in a virtual environment of its own, without " + " and ".join(others),
    )
