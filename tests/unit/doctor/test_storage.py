"""Where the doctor looks, and what it says about a home and its ledger."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import locate
from daemon.checks import Finding, storage
from daemon.checks.places import Places
from daemon.ledger.migrate import open_ledger


def statuses(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.name: finding.status for finding in findings}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"XDG_DATA_HOME": "/data/here"},
        {"XDG_DATA_HOME": "not/absolute"},
        {"STUDIOQ_HOME": "~/somewhere"},
        {"STUDIOQ_HOME": "relative/home"},
        {"STUDIOQ_HOME": "/h", "STUDIOQ_RUNTIME": "/r", "STUDIOQ_LOCKS": "/l"},
    ],
)
def test_the_doctor_looks_where_studioq_lives(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_DATA_HOME", "STUDIOQ_HOME", "STUDIOQ_RUNTIME", "STUDIOQ_LOCKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    paths, seen = locate.Paths.default(), Places.named_by(os.environ)
    assert (seen.home, seen.runtime) == (paths.home, paths.runtime)
    assert (seen.socket, seen.redis_socket) == (paths.socket, paths.redis_socket)
    assert (seen.ledger, seen.config) == (paths.ledger, paths.config)
    assert seen.locks == locate.machine_lock_folder()
    assert seen.versions.is_dir()


def test_the_doctor_knows_the_systems_file_and_the_named_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from daemon import defaults
    from daemon.checks import places as rules

    monkeypatch.delenv("STUDIOQ_SYSTEM_CONFIG", raising=False)
    monkeypatch.setenv("STUDIOQ_SOCKET", "/a/socket")
    seen = Places.named_by(os.environ)
    assert seen.system_config == Path(defaults.SYSTEM_CONFIG)
    assert seen.named_socket == locate.find_daemon().socket
    assert rules.MAX_SOCKET_PATH == defaults.MAX_SOCKET_PATH


def test_a_home_that_is_not_there_yet_is_well(places: Places) -> None:
    fresh = replace(places, home=places.home / "not-yet")
    assert set(statuses(storage.home(fresh)).values()) == {"ok"}
    assert statuses(storage.ledger(fresh)) == {"ledger": "ok"}
    assert statuses(storage.config(fresh)) == {"configuration": "ok"}


def test_an_open_home_and_a_planted_runtime_folder_are_told(places: Places) -> None:
    places.home.chmod(0o755)
    places.runtime.symlink_to(places.home)
    found = statuses(storage.home(places))
    assert (found["home"], found["runtime folder"]) == ("warning", "error")


def test_a_socket_path_that_is_too_long_is_told(places: Places) -> None:
    long = replace(places, runtime=Path("/tmp") / ("x" * 100))
    assert statuses(storage.home(long))["socket path"] == "error"


def test_a_wrong_configuration_is_told_with_its_line(places: Places) -> None:
    places.config.write_text('redis_url = "redis://x"\nmodel_roots = [1 2]\n')
    (finding,) = storage.config(places)
    assert finding.status == "error"
    assert "line" in finding.found


def test_model_roots_must_exist(places: Places) -> None:
    places.config.write_text(f'model_roots = ["{places.home}", "/nowhere/models"]\n')
    found = [finding for finding in storage.disk(places) if finding.name == "model root"]
    assert [finding.status == "error" for finding in found] == [False, True]


def test_a_ledger_is_examined_without_being_changed(places: Places) -> None:
    open_ledger(places.ledger)
    before = places.ledger.read_bytes()
    assert statuses(storage.ledger(places)) == {"ledger": "ok", "ledger pages": "ok"}
    assert places.ledger.read_bytes() == before


@pytest.mark.parametrize(("revision", "status"), [("0000", "note"), ("9999", "error")])
def test_the_ledgers_revision_is_compared(places: Places, revision: str, status: str) -> None:
    with closing(sqlite3.connect(places.ledger)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        connection.commit()
    assert statuses(storage.ledger(places))["ledger"] == status


def test_a_file_that_is_no_ledger_is_told(places: Places) -> None:
    places.ledger.write_bytes(b"no database at all, but long enough to be looked at" * 50)
    assert statuses(storage.ledger(places)) == {"ledger": "error", "ledger pages": "error"}
    places.ledger.write_bytes(b"")
    assert statuses(storage.ledger(places))["ledger"] == "error"


def test_a_damaged_page_is_found(places: Places) -> None:
    with closing(sqlite3.connect(places.ledger)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("CREATE TABLE rows (text TEXT)")
        connection.executemany("INSERT INTO rows VALUES (?)", [("x" * 500,)] * 100)
        connection.commit()
    content = bytearray(places.ledger.read_bytes())
    content[4096 * 4 : 4096 * 4 + 64] = b"\xff" * 64
    places.ledger.write_bytes(content)
    found = {finding.name: finding for finding in storage.ledger(places)}
    assert found["ledger pages"].status == "error"
    assert "restore a backup" in str(found["ledger pages"].remedy)
