"""``studioq doctor``: look at this machine and say what must be mended before studioq works.

It runs first: ``python3 daemon/doctor.py`` in a checkout, with any Python from 3.8 on and
nothing installed. So it imports the standard library and ``daemon.checks`` only.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # As a script this folder leads the search path, and daemon/queue would hide the module queue.
    _folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - before other imports
    sys.path[:] = [os.path.dirname(_folder)] + [  # noqa: PTH120
        entry
        for entry in sys.path
        if os.path.abspath(entry) != _folder  # noqa: PTH100
    ]

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING, TextIO

from daemon import __version__
from daemon.checks import (
    ERROR,
    NOTE,
    OK,
    WARNING,
    Finding,
    accelerator,
    guarded,
    services,
    storage,
    surroundings,
    wheels,
)
from daemon.checks.machine import Machine
from daemon.checks.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Check = Callable[[], Iterable[Finding]]
    Report = dict[str, list[Finding]]

SYMBOLS = {OK: "✓", NOTE: "·", WARNING: "!", ERROR: "✗"}
PLAIN = {OK: "+", NOTE: "-", WARNING: "!", ERROR: "x"}
COLOURS = {OK: "32", NOTE: "2", WARNING: "33", ERROR: "31"}


def checks(machine: Machine, places: Places) -> dict[str, dict[str, Check]]:
    """Return every check by group and name, in the order of the report."""
    return {
        "Machine": {
            "processor": lambda: [wheels.processor(machine)],
            "system": lambda: [wheels.system(machine)],
            "memory": partial(surroundings.memory, machine),
            "open files": surroundings.open_files,
            "display": partial(surroundings.display, machine),
        },
        "Python": {
            "python": partial(wheels.facts, machine),
            "mlx wheel": partial(wheels.wheel, machine),
            "name clash": surroundings.name_clash,
        },
        "MLX": {"mlx": partial(accelerator.mlx, machine)},
        "Home": {
            "home": partial(storage.home, places),
            "configuration": partial(storage.config, places),
            "disk": partial(storage.disk, places),
            "ledger": partial(storage.ledger, places),
        },
        "Services": {
            "redis": partial(services.redis, places),
            "daemon": partial(services.daemon, places),
            "other daemon": partial(services.neighbours, places),
            "gpu lock": partial(services.gpu_lock, places),
        },
    }


def examine(machine: Machine, places: Places) -> Report:
    """Run every check and return the findings by group."""
    return {
        group: [finding for name, check in named.items() for finding in guarded(name, check)]
        for group, named in checks(machine, places).items()
    }


def exit_status(report: Report) -> int:
    """Return 1 if something must be mended, else 0."""
    return int(any(finding.status == ERROR for finding in _all(report)))


def _all(report: Report) -> list[Finding]:
    return [finding for findings in report.values() for finding in findings]


def as_json(report: Report) -> str:
    """Return the report as one JSON object."""
    findings = [
        {
            "group": group,
            "name": finding.name,
            "status": finding.status,
            "found": finding.found,
            "remedy": finding.remedy,
        }
        for group, group_findings in report.items()
        for finding in group_findings
    ]
    answer = {"version": __version__, "ok": exit_status(report) == 0, "findings": findings}
    return json.dumps(answer, indent=2, ensure_ascii=False)


def as_text(report: Report, *, symbols: dict[str, str], colour: bool) -> str:
    """Return the report as aligned lines: groups, findings with their remedies, and a summary."""
    width = max(len(finding.name) for finding in _all(report))
    lines = []
    for group, findings in report.items():
        lines += ["", group]
        for finding in findings:
            mark = f"{symbols[finding.status]} {finding.status:<7}"
            painted = f"\033[{COLOURS[finding.status]}m{mark}\033[0m" if colour else mark
            lines.append(f"  {painted}  {finding.name:<{width}}  {finding.found}")
            if finding.remedy:
                lines.append(f"  {'':9}  {'':{width}}  → {finding.remedy}")
    return "\n".join([*lines[1:], "", summary(report)])


def summary(report: Report) -> str:
    """Return the last line: how many findings there are of each kind."""
    found = [finding.status for finding in _all(report)]
    counts = {status: found.count(status) for status in (ERROR, WARNING, NOTE)}
    words = [
        f"{count} {status}{'s' if count > 1 else ''}" for status, count in counts.items() if count
    ]
    if counts[ERROR]:
        return f"{', '.join(words)}: mend what is marked error, then run this again."
    return f"All well ({', '.join(words)})." if words else "All well."


def _write(text: str, stream: TextIO) -> None:
    """Write a line, in ASCII where the terminal has no more."""
    encoding = stream.encoding or "ascii"
    stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def _can_show(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Print the report; return 1 if something must be mended, else 0."""
    parser = argparse.ArgumentParser(prog="studioq doctor", description="Check this machine.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    report = examine(Machine.current(), Places.named_by(os.environ))
    if options.json:
        _write(as_json(report), sys.stdout)
    else:
        symbols = SYMBOLS if _can_show("".join(SYMBOLS.values()), sys.stdout) else PLAIN
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        _write(as_text(report, symbols=symbols, colour=colour), sys.stdout)
    return exit_status(report)


if __name__ == "__main__":
    sys.exit(main())
