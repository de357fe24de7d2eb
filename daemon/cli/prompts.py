"""Prompts that come over stdin.

The rule it protects: what was piped in is the prompt, byte for byte, but for one line end that
nobody meant.
"""

from __future__ import annotations

import sys

from daemon.errors import UsageError


def read_prompt() -> str:
    """Return stdin as it is, less one final line end (which an editor or ``echo`` added).

    Raises:
        UsageError: it is not UTF-8.
    """
    data = sys.stdin.buffer.read()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the prompt on stdin is not UTF-8 at byte {error.start}",
            remedy="convert it, for example: iconv -f ISO-8859-1 -t UTF-8",
        ) from None
    return (
        text.removesuffix("\n").removesuffix("\r")
        if text.endswith("\r\n")
        else text.removesuffix("\n")
    )
