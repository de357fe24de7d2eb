"""Opening, migrating, group commit, and readers beside writers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from daemon.errors import ConflictError
from daemon.ledger.migrate import LedgerVersionError, needs_migration, open_ledger
from daemon.ledger.revision import current_revision, next_revision
from daemon.ledger.store import Ledger, make_engine
from daemon.ledger.tables import Base, LedgerInfo
from daemon.ledger.writer import Writer, WriterClosedError

Submit = Callable[..., int]


def test_the_revisions_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    open_ledger(tmp_path / "ledger.db").close()
    engine = make_engine(tmp_path / "ledger.db", read_only=False)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_numbers_of_jobs_and_attempts_never_come_twice(ledger: Ledger) -> None:
    with ledger.reading() as session:
        rows = session.execute(text("SELECT sql FROM sqlite_master WHERE type = 'table'"))
        made = "\n".join(row[0] for row in rows)
    for table in ("jobs", "attempts"):
        definition = made.split(f"CREATE TABLE {table} ")[1].split("CREATE TABLE")[0]
        assert "AUTOINCREMENT" in definition


def test_durable_and_strict(ledger: Ledger) -> None:
    with ledger.writing() as session:
        found = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    open_ledger(path).close()
    assert not needs_migration(path)
    ledger = open_ledger(path)
    with ledger.reading() as session:
        assert session.scalar(select(func.count()).select_from(LedgerInfo)) == 1
    ledger.close()


def test_a_ledger_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    open_ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerVersionError, match="9999"):
        open_ledger(path)


def test_a_reader_cannot_write_and_does_not_see_half_a_change(ledger: Ledger) -> None:
    with ledger.writing() as writing:
        next_revision(writing)
        with ledger.reading() as reading:
            assert current_revision(reading) == 0
            with pytest.raises(OperationalError, match="readonly"):
                next_revision(reading)
    with ledger.reading() as reading:
        assert current_revision(reading) == 1


def test_many_changes_from_many_threads_are_all_written(ledger: Ledger) -> None:
    writer = Writer(ledger)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: writer.write(next_revision), range(400)))
    writer.close()
    assert sorted(results) == list(range(1, 401))


def test_a_refused_change_takes_no_neighbour_along(ledger: Ledger) -> None:
    def refused(session: Session) -> None:
        next_revision(session)
        raise ConflictError("no")

    writer = Writer(ledger)
    futures = [writer.submit(refused if index % 2 else next_revision) for index in range(20)]
    writer.close()
    assert [future.exception() is None for future in futures] == [True, False] * 10
    with ledger.reading() as session:
        assert current_revision(session) == 10


def test_a_closed_writer_refuses(ledger: Ledger) -> None:
    writer = Writer(ledger)
    writer.close()
    with pytest.raises(WriterClosedError):
        writer.submit(next_revision)


def test_a_result_comes_only_after_the_commit(ledger: Ledger) -> None:
    writer = Writer(ledger)
    revision = writer.write(next_revision)
    with ledger.reading() as session:
        assert current_revision(session) == revision
    writer.close()
