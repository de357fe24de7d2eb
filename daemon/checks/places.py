"""Where studioq's files are, by the rules of ``daemon.locate``, for a Python that cannot import it.

A test holds the two together; a path rule changes there first.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SOCKET_PATH = 103


@dataclass(frozen=True)
class Places:
    """What the doctor looks at; ``program`` is the folder of ``daemon`` and ``migrations``."""

    home: Path
    runtime: Path
    system_config: Path
    locks: Path
    temporary: Path
    program: Path
    named_socket: Path | None = None

    @classmethod
    def named_by(cls, environment: Mapping[str, str]) -> Places:
        """Return the places of the home that these environment variables name."""
        home = _home(environment)
        socket = environment.get("STUDIOQ_SOCKET")
        return cls(
            home=home,
            runtime=_runtime(environment, home),
            system_config=Path(environment.get("STUDIOQ_SYSTEM_CONFIG", "/etc/studioq.toml")),
            locks=Path(environment.get("STUDIOQ_LOCKS") or "/tmp/studioq-locks"),  # noqa: S108
            temporary=Path("/tmp"),  # noqa: S108 - where daemon.locate puts runtime folders
            program=Path(__file__).resolve().parents[2],
            named_socket=Path(socket) if socket else None,
        )

    @property
    def socket(self) -> Path:
        """The API socket of this home."""
        return self.runtime / "studioq.sock"

    @property
    def redis_socket(self) -> Path:
        """The embedded Redis server's socket."""
        return self.runtime / "private" / "redis.sock"

    @property
    def ledger(self) -> Path:
        """The SQLite ledger."""
        return self.home / "ledger.db"

    @property
    def config(self) -> Path:
        """The daemon's configuration."""
        return self.home / "config.toml"

    @property
    def versions(self) -> Path:
        """The ledger's migrations."""
        return self.program / "migrations" / "versions"


def _home(environment: Mapping[str, str]) -> Path:
    named = environment.get("STUDIOQ_HOME")
    if named:
        return Path(named).expanduser().absolute()
    shared = environment.get("XDG_DATA_HOME", "")
    if os.path.isabs(shared):  # noqa: PTH117
        return Path(shared, "studioq")
    data = "Library/Application Support" if sys.platform == "darwin" else ".local/share"
    return Path("~").expanduser() / data / "studioq"


def _runtime(environment: Mapping[str, str], home: Path) -> Path:
    named = environment.get("STUDIOQ_RUNTIME")
    if named:
        return Path(named).absolute()
    digest = hashlib.sha256(os.fsencode(str(home))).hexdigest()[:8]
    return Path("/tmp") / f"studioq-{os.getuid()}-{digest}"  # noqa: S108 - only looked at


class NoTomlReaderError(Exception):
    """This Python is older than 3.11 and cannot read TOML."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        NoTomlReaderError: Python is older than 3.11.
        OSError, ValueError: the file cannot be read, or a line of it is wrong.
    """
    try:
        reader: Any = importlib.import_module("tomllib")
    except ImportError:
        raise NoTomlReaderError from None
    tables: dict[str, Any] = reader.loads(path.read_text(encoding="utf-8"))
    return tables
