"""A job's log and streamed text: files that grow while it runs and that users read from.

The rule this module protects: a line of the log is written whole or not at all, and each attempt
says where it begins. The text of a job that starts anew starts anew too, in a new file, so that who
reads the old one is not confused.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from daemon.locate import Paths
from workers.failures import disk_errors


class JobFiles:
    """The log and the text of one job."""

    def __init__(self, paths: Paths, job: int) -> None:
        self._log = paths.log(job)
        self._text = paths.text(job)

    def begin(self, number: int, step: int | None) -> None:
        """Mark the beginning of attempt ``number``, which goes on from ``step`` if that is given.

        Raises:
            DiskFullError: it could not be written.
        """
        with disk_errors(self._log):
            self._log.parent.mkdir(parents=True, exist_ok=True)
        if number == 1:
            return
        place = "from the start" if step is None else f"from step {step}"
        self.append_log(f"— attempt {number}, {place} —")
        if self._text.exists():
            fresh = self._text.with_name("text.new")
            with disk_errors(self._text):
                fresh.write_bytes(b"")
                fresh.replace(self._text)

    def append_log(self, text: str) -> None:
        """Add one or more lines, given without the last line's end.

        Raises:
            DiskFullError: the disk is full; nothing of ``text`` is in the file.
        """
        _append(self._log, f"{text}\n")

    def append_text(self, text: str) -> None:
        """Add a piece of generated text.

        Raises:
            DiskFullError: the disk is full; nothing of ``text`` is in the file.
        """
        _append(self._text, text)


def _append(path: Path, text: str) -> None:
    """Write all of ``text`` at the end of the file, or leave the file as it was."""
    data = text.encode("utf-8", "replace")
    with disk_errors(path):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, data)
        finally:
            os.close(file)


def _write_all(file: int, data: bytes) -> None:
    size = os.fstat(file).st_size
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, size)
        raise
