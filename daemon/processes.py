"""Who a process is: its number together with the moment it started.

The rule this module protects: a signal goes only to the process that was recorded. Numbers are
used again, after a reboot even in the same order, so a recorded number alone may name a stranger.
"""

from __future__ import annotations

import hashlib
import os
import signal as signals
import sys
from functools import cache
from pathlib import Path
from typing import Any

# A double holds 53 bits exactly: 33 for clock ticks since boot (2.7 years at 100 Hz), 20 for the
# boot.
_TICK_BITS = 33
_BOOT_BITS = 20


def process_started(pid: int) -> float | None:
    """Return a number that tells this process from any other that had or gets the same ``pid``.

    It is a token to compare for equality, not a date: it survives JSON, and unlike a date it does
    not move when the clock is set. None if there is no such process.
    """
    if sys.platform == "linux":
        stat = _linux_stat(pid)
        return None if stat is None else float((_boot() << _TICK_BITS) + int(stat[19]))
    return _psutil_started(pid)


def is_alive(pid: int, started: float) -> bool:
    """Say whether the recorded process still runs; one that has only not been reaped does not."""
    return process_started(pid) == started and not _is_zombie(pid)


def kill_if_same(pid: int, started: float, signal: int = signals.SIGKILL) -> bool:
    """Send ``signal`` to the recorded process if it still lives; say whether it was sent.

    Raises:
        PermissionError: the process belongs to another user.
    """
    try:
        held = os.pidfd_open(pid) if sys.platform == "linux" else None
    except ProcessLookupError:
        return False
    except OSError:
        held = None
    try:
        return is_alive(pid, started) and _send(pid, held, signal)
    finally:
        if held is not None:
            os.close(held)


def _send(pid: int, held: int | None, signal: int) -> bool:
    """Signal through the held descriptor where there is one: the number cannot change hands."""
    try:
        if sys.platform == "linux" and held is not None:
            signals.pidfd_send_signal(held, signal)
        else:
            os.kill(pid, signal)
    except ProcessLookupError:
        return False
    return True


def _linux_stat(pid: int) -> list[bytes] | None:
    """Return the fields of ``/proc/PID/stat`` from the third (the state) on; see proc(5)."""
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before them is in parentheses and may itself hold blanks and parentheses.
    return content[content.rindex(b")") + 2 :].split()


@cache
def _boot() -> int:
    """Return a few bits that differ from boot to boot."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    digest = hashlib.sha256(boot.strip()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _BOOT_BITS)


def _is_zombie(pid: int) -> bool:
    if sys.platform == "linux":
        stat = _linux_stat(pid)
        return stat is None or stat[0] in (b"Z", b"X")
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _psutil_started(pid: int) -> float | None:
    import psutil

    try:
        return steady_create_time(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return None


def steady_create_time(process: Any) -> float:
    """Return the start of a ``psutil.Process``, in seconds, as the kernel noted it.

    macOS notes a date once and never moves it. psutil's public value adds how far the boot time
    has moved since psutil was imported, so after a step of the clock two programs would see two
    starts of one process. The unadjusted value is behind ``_proc`` (psutil 6 and 7); where that is
    missing or takes no ``monotonic``, the public value must do.
    """
    try:
        return float(process._proc.create_time(monotonic=True))
    except (AttributeError, TypeError):
        return float(process.create_time())
