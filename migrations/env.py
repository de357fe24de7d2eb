"""Alembic's entry: run the revisions on the ledger that the caller names."""

from __future__ import annotations

from pathlib import Path

from alembic import context

from daemon.ledger.store import make_engine
from daemon.ledger.tables import Base


def run() -> None:
    """Upgrade the ledger at ``config.attributes['ledger']`` in one transaction."""
    path: Path = context.config.attributes["ledger"]
    engine = make_engine(path, read_only=False)
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
