"""The daemon's own log: one line per action, ``action=… key=value``, UTC, rotated.

The rule it protects: a line can be found with grep and cannot be forged. Values that hold anything
but plain characters are quoted and escaped, and no secret is ever passed in.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

_PLAIN = re.compile(r"[\w.,:/@+-]+", re.ASCII)
_MAX_BYTES = 8 * 2**20
_KEPT = 4


class _Formatter(logging.Formatter):
    """``2026-11-23T01:02:03.456Z INFO daemon.api action=…``."""

    @staticmethod
    def converter(seconds: float | None) -> time.struct_time:
        """Give times in UTC."""
        return time.gmtime(seconds)

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def setup_logging(file: Path, *, stderr: bool, level: int = logging.INFO) -> None:
    """Send the log of every module to ``file``, and to stderr too unless that is the same file."""
    root = logging.getLogger()
    root.setLevel(level)
    handlers: list[logging.Handler] = [
        RotatingFileHandler(
            file, maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="utf-8", errors="replace"
        )
    ]
    if stderr and not _is_file(sys.stderr.fileno(), file):
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        root.addHandler(handler)
    for noisy in ("alembic", "uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _is_file(descriptor: int, file: Path) -> bool:
    """Return whether ``descriptor`` is open on ``file``, as in a daemon started detached."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except OSError:
        return False


def note(log: logging.Logger, action: str, /, level: int = logging.INFO, **values: object) -> None:
    """Log ``action`` with its ``values``, escaped so that none can look like another line."""
    if log.isEnabledFor(level):
        pairs = "".join(f" {key}={_shown(value)}" for key, value in values.items())
        log.log(level, "action=%s%s", action, pairs)


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
