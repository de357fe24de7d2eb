"""Opening the ledger: connections with the right pragmas, for reading or for writing.

Readers have an engine of their own and, thanks to the write-ahead log, never block or get blocked.
A write transaction takes SQLite's write lock when it begins (``BEGIN IMMEDIATE``), because one that
reads first and then wants to write can fail at once with "database is locked".
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from daemon import defaults

# Seconds between two tries to take the write lock; a transaction holds it for a few milliseconds.
_RETRY_EVERY = 0.0005


def _prepare(connection: Any, *, read_only: bool) -> None:
    """Set the pragmas of one new connection; Python's own transaction handling is switched off."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    if sys.platform == "darwin":
        cursor.execute("PRAGMA fullfsync = 1")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {defaults.BUSY_TIMEOUT_MS if read_only else 0}")
    if read_only:
        cursor.execute("PRAGMA query_only = 1")
    cursor.close()


def _begin_writing(connection: Any) -> None:
    """Take the write lock, trying again often: SQLite's own wait sleeps up to 100 ms at a time.

    Nothing after this in the transaction can find the ledger locked.
    """
    raw = connection.connection.dbapi_connection
    deadline = time.monotonic() + defaults.BUSY_TIMEOUT_MS / 1000
    while time.monotonic() < deadline:
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_RETRY_EVERY)
        else:
            return
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def make_engine(path: Path, *, read_only: bool) -> Engine:
    """Return an engine on the SQLite file ``path``, which must be in an existing folder."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        _prepare(connection, read_only=read_only)

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        if read_only:
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_writing(connection)

    return engine


class Ledger:
    """A ledger that exists and has been migrated (see ``daemon.ledger.migrate``)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._readers = make_engine(path, read_only=True)
        self._writers = make_engine(path, read_only=False)
        self._read = sessionmaker(self._readers, expire_on_commit=False)
        self._write = sessionmaker(self._writers, expire_on_commit=False)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that sees one consistent state and cannot write."""
        with self._read() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a session that holds the write lock and commits at the end, or rolls back."""
        with self._write.begin() as session:
            yield session

    def close(self) -> None:
        """Close every connection."""
        self._readers.dispose()
        self._writers.dispose()
