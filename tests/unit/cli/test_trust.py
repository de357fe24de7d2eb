"""Whom a client believes: nothing is sent to a socket that somebody else has put in the way."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon import autostart
from daemon.client import Client
from daemon.client.trust import admit
from daemon.errors import ConfigError, DaemonAwayError
from daemon.locate import Address, Paths, Trust, find_daemon

STRANGER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen as somebody else")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of somebody whose own home is empty; return its runtime folder."""
    folder = tmp_path_factory.mktemp("h")
    runtime = folder / "run"
    runtime.mkdir()
    monkeypatch.setenv("STUDIOQ_HOME", str(folder / "home"))
    monkeypatch.setenv("STUDIOQ_RUNTIME", str(runtime))
    monkeypatch.setenv("STUDIOQ_SYSTEM_CONFIG", str(folder / "studioq.toml"))
    monkeypatch.delenv("STUDIOQ_SOCKET", raising=False)
    return runtime


@contextmanager
def listening(path: Path, uid: int) -> Iterator[socket.socket]:
    """Listen at ``path`` as ``uid``, which the kernel notes in the moment of ``listen``."""
    before = os.geteuid()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.seteuid(uid)
        try:
            listener.listen()
        finally:
            os.seteuid(before)
        listener.settimeout(10)
        yield listener


def heard(listener: socket.socket) -> bytes:
    connection, _ = listener.accept()
    with connection:
        return connection.recv(1000)


@needs_root
def test_a_planted_socket_is_told_nothing(own_home: Path) -> None:
    with listening(own_home / "studioq.sock", STRANGER) as listener:
        with Client() as client, pytest.raises(ConfigError, match="nothing was sent") as caught:
            client.submit("infer", {"prompt": "a secret"}, hub_token="another")
        assert f"user {STRANGER}" in caught.value.message
        assert "STUDIOQ_RUNTIME" in str(caught.value.remedy)
        assert heard(listener) == b""


@needs_root
def test_a_planted_socket_is_not_taken_for_a_daemon_that_runs_already(own_home: Path) -> None:
    with listening(own_home / "studioq.sock", STRANGER), pytest.raises(ConfigError, match="not to"):
        autostart.start_daemon(Paths.default(), say=print)


@needs_root
def test_a_socket_that_the_user_named_is_trusted(own_home: Path) -> None:
    path = own_home / "studioq.sock"
    with listening(path, STRANGER) as listener:
        with Client(path, timeout=0.05) as client, pytest.raises(DaemonAwayError):
            client.status()
        assert heard(listener).startswith(b"GET /status")


def owned_folder(parent: Path, mode: int) -> Path:
    folder = parent / "shared"
    folder.mkdir()
    folder.chmod(mode)
    return folder


@pytest.fixture
def closed_place() -> Iterator[Path]:
    """A folder on whose way nobody but root may write, which nothing below /tmp is."""
    with tempfile.TemporaryDirectory(prefix="sqt", dir="/var") as folder:
        yield Path(folder)


@needs_root
def test_a_shared_daemon_is_not_believed_in_a_folder_of_another(closed_place: Path) -> None:
    path = owned_folder(closed_place, 0o755) / "s"
    Path(os.environ["STUDIOQ_SYSTEM_CONFIG"]).write_text(f'socket = "{path}"\n')
    with listening(path, STRANGER) as listener:
        with Client() as client, pytest.raises(ConfigError, match="its folder to root"):
            client.status()
        assert heard(listener) == b""


@needs_root
def test_a_shared_daemon_is_believed_in_its_own_folder(closed_place: Path) -> None:
    folder = owned_folder(closed_place, 0o755)
    os.chown(folder, STRANGER, -1)
    address = Address(socket=folder / "s", autostart=False, trust=Trust.SHARED)
    admit(address, STRANGER)
    admit(address, 0)
    with pytest.raises(ConfigError, match="user 65533"):
        admit(address, 65533)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757])
def test_a_shared_folder_that_others_may_write_in_is_refused(mode: int, tmp_path: Path) -> None:
    folder = owned_folder(tmp_path, mode)
    address = Address(socket=folder / "s", autostart=False, trust=Trust.SHARED)
    with pytest.raises(ConfigError, match=f"may write in {re.escape(str(folder))}"):
        admit(address, os.getuid())


def test_a_folder_that_others_could_put_there_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    folder = owned_folder(above, 0o755)
    above.chmod(0o777)
    address = Address(socket=folder / "s", autostart=False, trust=Trust.SHARED)
    with pytest.raises(ConfigError, match=f"may write in {re.escape(str(above))}"):
        admit(address, os.getuid())


def test_the_own_home_admits_its_user_and_root_alone(own_home: Path) -> None:
    address = find_daemon()
    assert (address.trust, address.socket.parent) == (Trust.OWN, own_home)
    admit(address, os.getuid())
    admit(address, 0)
    with pytest.raises(ConfigError, match="nothing was sent"):
        admit(address, STRANGER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no key socket"),
        ('home = "/x"', "has no key socket"),
        ("socket = 3", "socket = 3 is not"),
        ('socket = ""', "socket = '' is not"),
        ('socket = "a/b"', "socket = 'a/b' is not"),
        ("socket = [", "cannot be read"),
        ('socket = "\\xff"', "cannot be read"),
    ],
)
def test_a_pointer_that_names_no_socket_is_refused(text: str, message: str) -> None:
    pointer = Path(os.environ["STUDIOQ_SYSTEM_CONFIG"])
    pointer.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        find_daemon()
    assert str(pointer) in caught.value.message
    assert caught.value.remedy
