"""The line above what is shown: which file it is, and where it lies.

The rule this module protects: a picture never stands alone; its name, or the path of the saved
file, is always beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.cli.units import size
from tui.outputs.files import Look, Row, pictures
from tui.outputs.safe import one_line

if TYPE_CHECKING:
    from daemon.client.answers import JobLine


def caption(
    job: JobLine,
    row: Row,
    rows: Sequence[Row],
    *,
    pixels: tuple[int, int] | None = None,
    saved: Path | None = None,
    note: str = "",
) -> str:
    """Return the line: place among the pictures, name or path, size, and what is to be noted."""
    parts = [_place(row, rows) + (one_line(str(saved)) if saved else row.title)]
    if row.look is Look.PREVIEW:
        parts.append(_progress(job))
    if row.look is Look.STREAM:
        parts.append("as it is made" if job["state"] == "running" else job["state"])
    if pixels is not None and row.look is Look.PICTURE:
        parts.append(f"{pixels[0]} x {pixels[1]}")
    if row.artifact is not None:
        parts.append(size(row.bytes))
    return " · ".join(filter(None, [*parts, note]))


def _place(row: Row, rows: Sequence[Row]) -> str:
    found = [picture.key for picture in pictures(rows)]
    if row.look is not Look.PICTURE or len(found) < 2 or row.key not in found:
        return ""
    return f"{found.index(row.key) + 1}/{len(found)} "


def _progress(job: JobLine) -> str:
    progress = job["progress"]
    if not progress or not progress["total"]:
        return "being drawn"
    return f"step {progress['done'] or 0} of {progress['total']}"


def sheet_caption(rows: Sequence[Row], index: int, page: int, pages: int) -> str:
    """Return the line above the contact sheet."""
    of = f"page {page + 1} of {pages} · " if pages > 1 else ""
    here = rows[index].title if index < len(rows) else ""
    return f"{len(rows)} pictures · {of}{here}"
