"""Homes and machines for the doctor to look at."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import doctor
from daemon.checks.places import Places

ROOT = Path(doctor.__file__).parents[1]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A home of its own, existing and empty, on a machine without other daemons."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return Places(
        home=home,
        runtime=tmp_path / "run",
        system_config=tmp_path / "studioq.toml",
        locks=tmp_path / "locks",
        temporary=tmp_path / "tmp",
        program=ROOT,
    )


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a name short enough for a socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="sq", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)
