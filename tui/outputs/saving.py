"""Saving a job's files in a folder of the user's.

The rule this module protects: the client's own road is gone, which never overwrites a file that
differs and lets a file appear whole or not at all; it only counts what passes, and can be stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli.units import size
from daemon.client import download
from daemon.errors import StudioqError, UsageError
from daemon.wording import counted

if TYPE_CHECKING:
    from daemon.client import Client
    from daemon.client.answers import Artifact
    from daemon.client.download import Fetched


class StoppedError(StudioqError):
    """The saving was stopped before its end."""

    code = "stopped"


@dataclass(frozen=True, kw_only=True)
class Order:
    """Files of a job, to be saved in a folder."""

    number: int
    files: Sequence[Artifact]
    folder: Path


def default_folder(number: int) -> str:
    """Return the folder that is offered, the one of ``studioq fetch``."""
    return f"./job-{number}"


def folder_of(text: str) -> Path:
    """Return the folder that was typed.

    Raises:
        UsageError: there is none in it, or a file is in its place.
    """
    if not text.strip():
        raise UsageError("no folder was named", remedy="type a folder, or press escape")
    try:
        folder = Path(text.strip()).expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"{text!r} names no folder: {error}") from None
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", remedy="name a folder")
    return folder


class Counting:
    """Passes on a file's bytes, tells how many of ``total`` have passed, and can be stopped."""

    def __init__(
        self, client: Client, total: int, tell: Callable[[str], None], wanted: Callable[[], bool]
    ) -> None:
        self._client, self._total = client, total
        self._tell, self._wanted = tell, wanted
        self._done = 0
        self._told = ""

    def blocks(self, number: int, name: str) -> Iterator[bytes]:
        """Yield an artifact's bytes."""
        for block in self._client.blocks(number, name):
            if not self._wanted():
                raise StoppedError(f"saving {name} was stopped; nothing of it was left behind")
            self._done += len(block)
            self._say(name)
            yield block

    def _say(self, name: str) -> None:
        """Tell each whole per cent once."""
        text = f"saving {name} · {100 * self._done // max(1, self._total)} %"
        if text != self._told:
            self._told = text
            self._tell(text)


def save(
    client: Client, order: Order, tell: Callable[[str], None], wanted: Callable[[], bool]
) -> list[Fetched]:
    """Bring the files into the folder.

    Raises:
        FileDiffersError: a file there has other content; nothing was saved.
        StoppedError: it was no longer ``wanted``.
    """
    total = sum(file["bytes"] for file in order.files)
    source = Counting(client, total, tell, wanted)
    return download.fetch(source, order.number, order.files, order.folder)


def summary(order: Order, found: Sequence[Fetched]) -> str:
    """Return what was saved where."""
    written = [file for file in found if file.written]
    kept = len(found) - len(written)
    there = f", {kept} lay there already" if kept else ""
    total = size(sum(file.bytes for file in written))
    return f"{counted(len(written), 'file')} saved in {order.folder} ({total}){there}"
