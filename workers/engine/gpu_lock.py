"""The machine-wide lock on a GPU: one file per device, shared by all homes and users.

The rule this module protects: one process uses a GPU at a time, and death releases it. The kernel
drops a ``flock`` with its holder, so no lock is ever stale; the text in the file is for people.
The folder is writable by everybody, so whatever lies there is looked at before it is used.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import re
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import ConfigError
from daemon.processes import process_started

_FOLDER_MODE = 0o1777
_FILE_MODE = 0o666
_MOST_TEXT = 4096
_MOST_SHOWN = 200

# Seconds between two looks at who holds the lock, while waiting for it.
_LOOK_EVERY = 1.0

# Seconds between two touches of the file: cleaners of /tmp remove what was not used for days.
_TOUCH_EVERY = 3600.0


def device_lock_name(environment: Mapping[str, str]) -> str:
    """Return the name of the file for the device that MLX will use: the first visible one."""
    first = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    return f"gpu-{re.sub(r'[^A-Za-z0-9-]', '_', first)[:64]}.lock"


@dataclass(slots=True)
class GpuLock:
    """A held lock; it is let go by the end of the process."""

    _descriptor: int
    _touched: float

    @classmethod
    def acquire(cls, path: Path, *, home: Path, report: Callable[[str], None]) -> GpuLock:
        """Wait for the lock ``path`` and write this process, its user and its ``home`` into it.

        While another process holds it, ``report`` gets a sentence that names that process, once
        and again at each change, from another thread.

        Raises:
            ConfigError: the folder or file is not one that can be trusted or used.
        """
        _make_folder(path.parent)
        while True:
            descriptor = _open(path)
            _wait(descriptor, report)
            if _is_at(path, descriptor):
                break
            os.close(descriptor)
        _write_holder(descriptor, home)
        return cls(descriptor, time.monotonic())

    def keep(self) -> None:
        """Touch the file now and then, so that no cleaner removes it from under its holder."""
        now = time.monotonic()
        if now - self._touched >= _TOUCH_EVERY:
            os.utime(self._descriptor)
            self._touched = now


def _make_folder(folder: Path) -> None:
    """Make the folder writable for all and sticky, or check that it is a folder at all."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise _refusal(folder, "is not a folder") from None
    except OSError as error:
        raise _refusal(folder, f"cannot be made: {error.strerror}") from None
    else:
        folder.chmod(_FOLDER_MODE)


def _open(path: Path) -> int:
    """Open the lock file, creating it if need be.

    Existing files are opened without O_CREAT: with it, Linux refuses another user's file in a
    sticky folder (fs.protected_regular).
    """
    while True:
        try:
            return _checked(path, _open_with(path, 0))
        except FileNotFoundError:
            pass
        try:
            return _checked(path, _open_with(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue


def _open_with(path: Path, flags: int) -> int:
    """Open without following links and without waiting for the other end of a pipe."""
    flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    umask = os.umask(0)
    try:
        return os.open(path, flags, _FILE_MODE)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        reason = "is a link" if error.errno == errno.ELOOP else f"cannot be opened: {error}"
        raise _refusal(path, reason) from None
    finally:
        os.umask(umask)


def _checked(path: Path, descriptor: int) -> int:
    """Refuse anything but a plain file with one name; writing to it could harm its owner."""
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    raise _refusal(path, "is not a plain file with one name")


def _refusal(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"the GPU lock {path} {reason}",
        remedy=f"have an admin remove {path}, or set STUDIOQ_LOCKS to another folder "
        "for every user of this machine",
    )


def _is_at(path: Path, descriptor: int) -> bool:
    """Say whether the file still has its name; a removed one locks nobody out."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _wait(descriptor: int, report: Callable[[str], None]) -> None:
    """Take the lock; while that takes, say who has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        locked = threading.Event()
        reporter = threading.Thread(
            target=_report_holder, args=(descriptor, report, locked), daemon=True
        )
        reporter.start()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        finally:
            locked.set()
            reporter.join()


def _report_holder(descriptor: int, report: Callable[[str], None], locked: threading.Event) -> None:
    said = None
    while True:
        sentence = _describe_holder(os.pread(descriptor, _MOST_TEXT, 0))
        if sentence != said:
            report(sentence)
            said = sentence
        if locked.wait(_LOOK_EVERY):
            return


def _describe_holder(content: bytes) -> str:
    """Name the holder; anybody can write into the file, so only a living process is believed."""
    try:
        holder = json.loads(content)
        pid, started = int(holder["pid"]), float(holder["started"])
        user, home = _printable(holder["user"]), _printable(holder["home"])
        known = process_started(pid) == started
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        known = False
    if not known:
        return "the GPU is held by another process"
    return f"the GPU is held by process {pid} of user {user} (home {home})"


def _printable(value: object) -> str:
    text = str(value)[:_MOST_SHOWN]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _write_holder(descriptor: int, home: Path) -> None:
    """Write who holds the lock over what an earlier holder wrote."""
    holder = {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "user": _user_name(os.getuid()),
        "home": str(home),
        "started": process_started(os.getpid()),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
