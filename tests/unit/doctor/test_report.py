"""The doctor's report, and its run in a checkout with nothing installed."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import checks, doctor
from daemon.checks import Finding, guarded

ROOT = Path(doctor.__file__).parents[1]
SOURCES = [Path(doctor.__file__), *sorted(Path(checks.__file__).parent.glob("*.py"))]


def test_a_check_that_raises_becomes_a_finding() -> None:
    def broken() -> Iterator[Finding]:
        yield checks.ok("first", "well")
        raise OSError("no such luck")

    first, last = guarded("second", broken)
    assert first.name == "first"
    assert (last.name, last.status) == ("second", "warning")
    assert last.found == "could not be checked: OSError: no such luck"


REPORT = {
    "Machine": [checks.ok("processor", "arm64, native"), checks.note("display", "on", "sleep")],
    "Python": [
        checks.error("python", "3.9 is too old", "get 3.12"),
        checks.warning("pip", "?", "!"),
    ],
}


def test_the_text_is_aligned_and_ends_with_a_summary() -> None:
    lines = doctor.as_text(REPORT, symbols=doctor.SYMBOLS, colour=False).splitlines()
    assert lines == [
        "Machine",
        "  ✓ ok       processor  arm64, native",
        "  · note     display    on",
        "                        → sleep",
        "",
        "Python",
        "  ✗ error    python     3.9 is too old",
        "                        → get 3.12",
        "  ! warning  pip        ?",
        "                        → !",
        "",
        "1 error, 1 warning, 1 note: mend what is marked error, then run this again.",
    ]


def test_colour_is_only_around_the_status() -> None:
    text = doctor.as_text(REPORT, symbols=doctor.SYMBOLS, colour=True)
    assert "\033[31m✗ error  \033[0m  python " in text


def test_only_errors_must_be_mended() -> None:
    assert doctor.exit_status(REPORT) == 1
    assert doctor.exit_status({"Machine": REPORT["Machine"]}) == 0
    assert doctor.summary({"Machine": REPORT["Machine"]}) == "All well (1 note)."


def test_json_has_every_finding() -> None:
    answer = json.loads(doctor.as_json(REPORT))
    assert (answer["ok"], len(answer["findings"])) == (False, 4)
    assert answer["findings"][2] == {
        "group": "Python",
        "name": "python",
        "status": "error",
        "found": "3.9 is too old",
        "remedy": "get 3.12",
    }


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_doctor_parses_on_python_3_8(source: Path) -> None:
    ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 8))


def old_interpreters() -> list[str]:
    """Return Pythons from 3.8 to 3.10 that start here: beside this one, or on the PATH."""
    beside = Path(sys.base_prefix).parent
    found = []
    for minor in (8, 9, 10):
        named = [*map(str, beside.glob(f"*/bin/python3.{minor}")), f"python3.{minor}"]
        found += [program for program in named if _starts(program)][:1]
    return found


def _starts(program: str) -> bool:
    try:
        return subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("program", [*old_interpreters(), sys.executable])
def test_it_runs_from_a_checkout(program: str, tmp_path: Path) -> None:
    """With siblings as in a checkout: daemon/queue must not hide the standard library's queue."""
    checkout = tmp_path / "checkout"
    for source in SOURCES:
        target = checkout / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (checkout / "daemon" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (checkout / "daemon" / "queue").mkdir()
    (checkout / "daemon" / "queue" / "__init__.py").write_text("raise SystemExit('hidden')\n")
    environment = {"STUDIOQ_HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [program, "daemon/doctor.py", "--json"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    answer = json.loads(done.stdout)
    assert done.stderr == ""
    assert done.returncode == (0 if answer["ok"] else 1)
    assert not any("could not be checked" in finding["found"] for finding in answer["findings"])
    assert {"processor", "python", "mlx", "disk", "daemon"} <= {
        f["name"] for f in answer["findings"]
    }


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    environment = {"STUDIOQ_HOME": str(tmp_path / "home"), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, doctor.__file__],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.isascii()
    assert "+ ok" in done.stdout
