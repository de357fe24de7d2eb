"""Creating and upgrading the ledger with Alembic; done by the daemon when it opens it."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from sqlalchemy import select

import migrations
from daemon.errors import StudioqError
from daemon.ledger.store import Ledger, make_engine
from daemon.ledger.tables import LedgerInfo

log = logging.getLogger(__name__)


class LedgerVersionError(StudioqError):
    """The ledger was written by a newer studioq."""

    code = "ledger_version"


def needs_migration(path: Path) -> bool:
    """Return whether the ledger at ``path`` is absent or older than this program."""
    return not path.exists() or _current(path) != _newest()


def open_ledger(path: Path) -> Ledger:
    """Create or upgrade the ledger and open it.

    Raises:
        LedgerVersionError: a newer studioq has written it.
    """
    if needs_migration(path):
        _upgrade(path)
    ledger = Ledger(path)
    with ledger.writing() as session:
        if session.scalar(select(LedgerInfo)) is None:
            session.add(LedgerInfo(id=1, ledger_id=secrets.token_hex(4), revision=0))
    return ledger


def _versions() -> Path:
    return Path(str(migrations.__file__)).parent


def _newest() -> str:
    """Return the newest revision's name, which every revision's file name begins with."""
    newest = max(file.name for file in (_versions() / "versions").glob("[0-9]*.py"))
    return newest.split("_")[0]


def _current(path: Path) -> str | None:
    engine = make_engine(path, read_only=True)
    try:
        with engine.connect() as connection:
            if not connection.dialect.has_table(connection, "alembic_version"):
                return None
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    finally:
        engine.dispose()


def _upgrade(path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_versions()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["ledger"] = path
    log.info("action=migrate_ledger path=%s to=%s", path, _newest())
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LedgerVersionError(
            f"the ledger {path} is at revision {_current(path)}, which this studioq does not know",
            remedy="upgrade studioq, or restore a backup of the ledger",
        ) from error
