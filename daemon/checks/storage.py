"""The home: its folders and rights, the configuration, the ledger inside, and the room on the disk.

Everything is opened for reading only, and nothing is created.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from daemon.checks import Finding, error, note, ok, size, warning
from daemon.checks.places import MAX_SOCKET_PATH, NoTomlReaderError, Places, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 2**30
LEAST_SPACE = 1 * GIB
GOOD_SPACE = 20 * GIB  # a 7B model at 16 bits with its checkpoints
LONGEST_CHECK = 10.0  # seconds
MADE = "the daemon makes it when it first starts"


def home(places: Places) -> Iterator[Finding]:
    """Judge owner and rights of the home and of the runtime folder."""
    yield _own_folder("home", places.home, private=True)
    yield _own_folder("runtime folder", places.runtime, private=False)
    length = len(os.fsencode(str(places.redis_socket)))
    if length > MAX_SOCKET_PATH:
        yield error(
            "socket path",
            f"{places.redis_socket} has {length} bytes; the system allows {MAX_SOCKET_PATH}",
            "set STUDIOQ_RUNTIME to a shorter folder, for example /tmp/sq",
        )


def _own_folder(name: str, folder: Path, *, private: bool) -> Finding:
    """Judge a folder; only the home may be a link, since anybody can plant one in /tmp."""
    try:
        found = folder.stat() if private else folder.lstat()
    except FileNotFoundError:
        return ok(name, f"{folder} is not there yet; {MADE}")
    if not stat.S_ISDIR(found.st_mode):
        return error(name, f"{folder} is not a folder", f"move {folder} away")
    if found.st_uid != os.getuid():
        variable = "STUDIOQ_HOME" if private else "STUDIOQ_RUNTIME"
        return error(
            name,
            f"{folder} belongs to {user_name(found.st_uid)}",
            f"run as that account, or set {variable} to a folder of your own",
        )
    mode = stat.S_IMODE(found.st_mode)
    if private and mode & 0o077:
        return warning(name, f"{folder} is open to others ({mode:04o})", f"chmod 700 '{folder}'")
    if not os.access(str(folder), os.W_OK | os.X_OK):
        return error(name, f"{folder} is read-only ({mode:04o})", f"chmod u+rwx '{folder}'")
    return ok(name, str(folder))


def user_name(uid: int) -> str:
    """Return an account's name, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def settings(places: Places) -> dict[str, Any]:
    """Return the home's configuration, or nothing where there is none or it cannot be read."""
    try:
        return read_toml(places.config)
    except (OSError, ValueError, NoTomlReaderError):
        return {}


def config(places: Places) -> Iterator[Finding]:
    """Judge whether the home's configuration can be read."""
    if not places.config.exists():
        yield ok("configuration", f"{places.config} is not there: defaults")
        return
    try:
        read_toml(places.config)
    except NoTomlReaderError:
        yield note("configuration", "not read: this needs Python 3.11")
    except (OSError, ValueError) as problem:
        yield error("configuration", f"{places.config}: {problem}", "correct it, or move it away")
    else:
        yield ok("configuration", str(places.config))


def disk(places: Places) -> Iterator[Finding]:
    """Judge the free space under the home and under every configured model root."""
    yield _space("disk", places.home)
    roots = settings(places).get("model_roots", [])
    for root in roots if isinstance(roots, list) else []:
        folder = Path(str(root)).expanduser()
        if folder.is_dir():
            yield _space("model root", folder)
        else:
            yield error("model root", f"{folder} is no folder", f"correct {places.config}")


def _space(name: str, folder: Path) -> Finding:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(str(existing)).free
    found = f"{size(free)} free under {folder}"
    if free < LEAST_SPACE:
        return error(name, found, "free some space there")
    if free < GOOD_SPACE:
        return note(name, found, f"a 7B model and its checkpoints want about {size(GOOD_SPACE)}")
    return ok(name, found)


def ledger(places: Places) -> Iterator[Finding]:
    """Judge the ledger's revision and whether SQLite finds its pages sound."""
    if not places.ledger.exists():
        yield ok("ledger", f"{places.ledger} is not there yet; {MADE}")
        return
    connection = sqlite3.connect(f"file:{quote(str(places.ledger))}?mode=ro", uri=True, timeout=5)
    try:
        yield _revision(connection, places)
        yield _integrity(connection, places)
    finally:
        connection.close()


def newest_revision(versions: Path) -> str | None:
    """Return the newest migration's number; the files are named ``NNNN_what.py``."""
    names = sorted(file.name for file in versions.glob("[0-9]*.py"))
    return names[-1].split("_")[0] if names else None


def _revision(connection: sqlite3.Connection, places: Places) -> Finding:
    newest = newest_revision(places.versions)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as problem:
        if isinstance(problem, sqlite3.OperationalError) and "no such table" not in str(problem):
            raise
        return error(
            "ledger",
            f"{places.ledger} is not a studioq ledger: {problem}",
            "restore a backup of it, or move the file away",
        )
    current = str(row[0]) if row else "none"
    if newest is None or current == newest:
        return ok("ledger", f"{places.ledger}, revision {current}")
    if current != "none" and current > newest:
        return error(
            "ledger",
            f"revision {current} was written by a newer studioq; this one knows {newest}",
            "upgrade studioq, or restore a backup of the ledger",
        )
    return note("ledger", f"revision {current}; the daemon will upgrade it to {newest}")


def _integrity(connection: sqlite3.Connection, places: Places) -> Finding:
    """Run SQLite's quick check, for ten seconds at most."""
    until = time.monotonic() + LONGEST_CHECK
    connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
    try:
        rows = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
    except sqlite3.OperationalError as problem:
        if "interrupted" in str(problem):
            return note("ledger pages", f"sound in {LONGEST_CHECK:.0f} seconds of checking")
        raise
    except sqlite3.DatabaseError as problem:
        rows = [str(problem)]
    if rows == ["ok"]:
        return ok("ledger pages", "sound")
    return error(
        "ledger pages",
        f"damaged: {rows[0].splitlines()[-1]}",
        f"stop the daemon, keep a copy of {places.ledger}, and restore a backup or run "
        f"`sqlite3 '{places.ledger}' .recover`",
    )
