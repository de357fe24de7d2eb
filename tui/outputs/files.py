"""The rows of the list of outputs: what a job has made, and what it is just making.

The rule this module protects: a row is told by what the daemon says of it, and what can be done
with it follows from the row alone. A name never leads anywhere; it is only shown.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from rich.cells import set_cell_size

from daemon.cli.units import size
from daemon.client.download import is_final
from tui.outputs.safe import one_line, shortened

if TYPE_CHECKING:
    from daemon.client.answers import Artifact, JobLine

PREVIEW_KEY, STREAM_KEY = "\0preview", "\0text"

_PICTURES = (".png", ".jpg", ".jpeg")
_TEXTS = (".txt", ".jsonl", ".json", ".md", ".csv", ".log", ".yaml", ".yml", ".toml", ".jinja")
_TEXT_KINDS = frozenset({"text", "samples", "metrics"})
_STARTED = frozenset({"running", "paused", "failed", "cancelled", "succeeded"})

# Cells of what stands beside the name, and the least of the name where there is a size.
_SIZE, _GLYPH = 8, 2
_NAME_LEAST = 14


class Look(Enum):
    """How a row is shown."""

    PICTURE = auto()
    TEXT = auto()
    FACTS = auto()
    PREVIEW = auto()
    STREAM = auto()


_GLYPHS = {
    Look.PICTURE: "▣",
    Look.TEXT: "≡",
    Look.FACTS: "·",
    Look.PREVIEW: "◌",
    Look.STREAM: "◌",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the list; ``artifact`` is None for what is being made."""

    key: str
    title: str
    look: Look
    artifact: Artifact | None = None

    @property
    def step(self) -> int | None:
        """The checkpoint's step."""
        return self.artifact.get("step") if self.artifact else None

    @property
    def bytes(self) -> int | None:
        """The file's size."""
        return self.artifact["bytes"] if self.artifact else None


def look_of(artifact: Artifact) -> Look:
    """Return how a file is shown."""
    name = artifact["name"].lower()
    if name.endswith(_PICTURES):
        return Look.PICTURE
    if name.endswith(_TEXTS) or artifact["kind"] in _TEXT_KINDS:
        return Look.TEXT
    return Look.FACTS


def rows_of(job: JobLine, artifacts: Sequence[Artifact]) -> list[Row]:
    """Return what is being made, then results by name, then checkpoints, the latest first."""
    results = sorted(filter(is_final, artifacts), key=lambda file: _natural(file["name"]))
    others = [file for file in artifacts if not is_final(file)]
    others.sort(key=lambda file: (-(file.get("step") or 0), _natural(file["name"])))
    return [*_being_made(job, artifacts), *map(_row, (*results, *others))]


def _row(artifact: Artifact) -> Row:
    return Row(
        key=artifact["name"], title=title_of(artifact), look=look_of(artifact), artifact=artifact
    )


def title_of(artifact: Artifact) -> str:
    """Return a file's name; a checkpoint's is ``@STEP`` and the name in its folder."""
    name, step = artifact["name"], artifact.get("step")
    if step is not None and not is_final(artifact):
        return f"@{step} {one_line(name.rpartition('/')[2])}"
    return one_line(name)


def _being_made(job: JobLine, artifacts: Iterable[Artifact]) -> list[Row]:
    """Return the row of the preview, or of a text that is not yet or never became a file."""
    if job["kind"] == "diffuse" and job["state"] == "running":
        return [Row(key=PREVIEW_KEY, title="preview", look=Look.PREVIEW)]
    texts = any(file["kind"] == "text" for file in artifacts)
    if job["kind"] == "infer" and job["state"] in _STARTED and not texts:
        return [Row(key=STREAM_KEY, title="text so far", look=Look.STREAM)]
    return []


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key by which ``a-9`` comes before ``a-10``."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(1, int(part), "") if place % 2 else (0, 0, part) for place, part in enumerate(parts)]


def pictures(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that are finished pictures."""
    return [row for row in rows if row.look is Look.PICTURE]


def first_choice(rows: Sequence[Row]) -> Row | None:
    """Return what is shown before anybody has chosen: what is being made, a result, anything."""
    order = (Look.PREVIEW, Look.STREAM, Look.PICTURE, Look.TEXT, Look.FACTS)
    finals = [row for row in rows if row.artifact is None or is_final(row.artifact)]
    return min(finals or rows, key=lambda row: order.index(row.look), default=None)


def neighbour(rows: Sequence[Row], key: str | None, step: int) -> Row | None:
    """Return the picture ``step`` places on from the row ``key``, around the end."""
    found = pictures(rows)
    if not found:
        return None
    places = [place for place, row in enumerate(found) if row.key == key]
    if not places:
        return found[0 if step > 0 else -1]
    return found[(places[0] + step) % len(found)]


def after_change(rows: Sequence[Row], key: str | None) -> Row | None:
    """Return the row to show when the list has changed: the same one if it is still there."""
    return next((row for row in rows if row.key == key), None) or first_choice(rows)


def row_line(row: Row, width: int) -> str:
    """Return the row as a line of ``width`` cells; narrow ones go without the size."""
    column = ""
    if width >= _NAME_LEAST + _GLYPH + _SIZE:
        column = (size(row.bytes) if row.artifact else "live").rjust(_SIZE)
    room = max(1, width - _GLYPH - len(column))
    return f"{_GLYPHS[row.look]} {set_cell_size(shortened(row.title, room), room)}{column}"


def fetch_command(number: int, name: str) -> str:
    """Return the command that brings a file."""
    return f"studioq fetch {number} {shlex.quote(name)}"


def use_of(job: JobLine, artifact: Artifact) -> str:
    """Return what a file that is not shown is good for, as a command."""
    number, step = job["id"], artifact.get("step")
    model = job["model"] or "MODEL"
    match artifact["kind"]:
        case "adapter":
            return f"studioq infer --model {model} --adapter job:{number} --prompt TEXT"
        case "checkpoint" if step is not None:
            return f"studioq infer --model {model} --adapter job:{number}@{step} --prompt TEXT"
        case "state":
            return f"studioq train --resume job:{number} …"
        case "model":
            return "studioq models lists the model; --model takes its name"
    return fetch_command(number, artifact["name"])
