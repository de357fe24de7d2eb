from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from daemon.errors import ConfigError
from daemon.processes import process_started
from workers.engine.gpu_lock import GpuLock, device_lock_name


def ignore(sentence: str) -> None:
    pass


def test_the_file_is_one_for_all_users_and_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "gpu-0.lock"
    lock = GpuLock.acquire(path, home=tmp_path / "home", report=ignore)
    holder = json.loads(path.read_text())
    assert holder["pid"] == os.getpid()
    assert holder["home"] == str(tmp_path / "home")
    assert holder["started"] == process_started(os.getpid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o1777
    lock.keep()


def test_a_later_holder_replaces_what_an_earlier_one_wrote(tmp_path: Path) -> None:
    path = tmp_path / "gpu-0.lock"
    path.write_text("x" * 5000)
    GpuLock.acquire(path, home=tmp_path, report=ignore)
    assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "another process"),
        (b"not json", "another process"),
        (b'{"pid": 1, "started": 5, "user": "eve", "home": "/"}', "another process"),
        (b'{"pid": {}}', "another process"),
        (b"[" * 4000, "another process"),
        (None, f"process {os.getpid()} of user ana?[2J (home /h)"),
    ],
    ids=["empty", "no json", "another start", "no pid", "deep", "alive"],
)
def test_waiting_says_who_holds_it_and_believes_only_what_lives(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "gpu-0.lock"
    holder = {
        "pid": os.getpid(),
        "started": process_started(os.getpid()),
        "user": "ana\x1b[2J",
        "home": "/h",
    }
    path.write_bytes(json.dumps(holder).encode() if content is None else content)
    heard: list[str] = []
    spoke = threading.Event()

    def report(sentence: str) -> None:
        heard.append(sentence)
        spoke.set()

    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=GpuLock.acquire, args=(path,), kwargs={"home": tmp_path, "report": report}
        )
        waiting.start()
        assert spoke.wait(30)
    waiting.join(30)
    assert not waiting.is_alive()
    assert heard[0] == f"the GPU is held by {said}"


def test_a_removed_file_is_not_mistaken_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "gpu-0.lock"
    path.touch()
    spoke = threading.Event()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=GpuLock.acquire,
            args=(path,),
            kwargs={"home": tmp_path, "report": lambda _: spoke.set()},
        )
        waiting.start()
        assert spoke.wait(30)
        path.unlink()
    waiting.join(30)
    with path.open("rb") as mine, pytest.raises(BlockingIOError):
        fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("planted", ["link", "hard link", "pipe", "folder", "folder is a file"])
def test_planted_things_are_refused_and_left_alone(tmp_path: Path, planted: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    folder = tmp_path / "locks"
    path = folder / "gpu-0.lock"
    if planted == "folder is a file":
        folder.write_text("")
    else:
        folder.mkdir()
    if planted == "link":
        path.symlink_to(precious)
    elif planted == "hard link":
        path.hardlink_to(precious)
    elif planted == "pipe":
        os.mkfifo(path)
    elif planted == "folder":
        path.mkdir()
    with pytest.raises(ConfigError) as raised:
        GpuLock.acquire(path, home=tmp_path, report=ignore)
    assert raised.value.remedy is not None
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        (None, "gpu-0.lock"),
        ("", "gpu-0.lock"),
        ("2,0", "gpu-2.lock"),
        ("GPU-8a1f/../x", "gpu-GPU-8a1f____x.lock"),
    ],
)
def test_each_device_has_a_file_of_its_own(visible: str | None, name: str) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert device_lock_name(environment) == name
