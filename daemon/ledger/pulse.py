"""Whether anything has been committed to the ledger since the last look, by whichever process.

SQLite keeps a counter for that in the shared memory of the write-ahead log (``PRAGMA
data_version``); reading it takes microseconds and no lock.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote


class Pulse:
    """A connection that only watches the counter. For one thread."""

    def __init__(self, ledger: Path) -> None:
        self._connection = sqlite3.connect(
            f"file:{quote(str(ledger))}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        self._last: int | None = None

    def changed(self) -> bool:
        """Return whether there was a commit since the last call; true at the first."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        changed: bool = version != self._last
        self._last = version
        return changed

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
