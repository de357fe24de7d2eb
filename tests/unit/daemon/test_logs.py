from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.logs import note, setup_logging


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    setup_logging(tmp_path / "daemon.log", stderr=False)
    yield tmp_path / "daemon.log"
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def test_a_line_is_an_action_with_values(file: Path) -> None:
    note(logging.getLogger("daemon.x"), "started", child="redis", pid=7)

    line = file.read_text()

    assert line.endswith("INFO daemon.x action=started child=redis pid=7\n")
    assert line[10] == "T"
    assert line[23] == "Z"


def test_a_value_cannot_forge_a_line(file: Path) -> None:
    note(logging.getLogger("daemon.x"), "named", name='a b\n2026 action=ok "x" \x1b[2J é')

    (line,) = file.read_text().splitlines()

    assert line.endswith(r'action=named name="a b\n2026 action=ok \"x\" \u001b[2J \u00e9"')
