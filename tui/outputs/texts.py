"""The content of text files as it is read: bounded, decoded, made harmless, and laid out.

The rule this module protects: at most the first megabyte is fetched and held, and a note says so;
the file itself stays what it is, to be saved or opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from daemon.cli.units import size
from tui.outputs.safe import safe_text
from tui.outputs.wrapping import MOST_LINES

MOST_BYTES = 1_000_000

# A row of JSON lines that is longer, or has texts of several lines, is laid out in a block.
_LONG_ROW = 100


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text to be shown; ``language`` is ``json``, ``rows``, one of pygments', or None."""

    text: str
    language: str | None = None
    note: str = ""


def first_part(blocks: Iterable[bytes], most: int = MOST_BYTES) -> tuple[bytes, bool]:
    """Return the first ``most`` bytes, and whether that is not all."""
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > most:
            return bytes(data[:most]), True
    return bytes(data), False


def read_text(name: str, data: bytes, *, total: int, clipped: bool) -> Text:
    """Return the beginning ``data`` of a file of ``total`` bytes as it is shown."""
    text = data.decode("utf-8", "replace")
    suffix = name.lower().rpartition(".")[2]
    language, laid_out = _laid_out(suffix, text, clipped=clipped)
    shown = safe_text(laid_out).rstrip("\n")
    lines = shown.split("\n")
    notes = [f"the first {size(len(data))} of {size(total)}"] if clipped else []
    if len(lines) > MOST_LINES:
        notes.append(f"the first {MOST_LINES:,} of {len(lines):,} lines")
        shown = "\n".join(lines[:MOST_LINES])
    return Text(text=shown, language=language, note=", ".join(notes))


def _laid_out(suffix: str, text: str, *, clipped: bool) -> tuple[str | None, str]:
    match suffix:
        case "json":
            return "json", text if clipped else _pretty(text)
        case "jsonl":
            return "rows", _rows(text, clipped=clipped)
        case "yaml" | "yml":
            return "yaml", text
        case "toml" | "md":
            return {"toml": "toml", "md": "markdown"}[suffix], text
    return None, text


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _rows(text: str, *, clipped: bool) -> str:
    """Lay out JSON lines; the last one of a part is likely broken and is left out."""
    lines = text.split("\n")
    if clipped and len(lines) > 1:
        lines.pop()
    return "\n".join(_row(number, line) for number, line in enumerate(lines, 1) if line.strip())


def _row(number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(row, dict) or not _is_long(row, line):
        return line.strip()
    return "\n".join([f"── {number} ──", *(_field(key, value) for key, value in row.items()), ""])


def _is_long(row: dict[str, Any], line: str) -> bool:
    return len(line) > _LONG_ROW or any(
        isinstance(value, str) and "\n" in value for value in row.values()
    )


def _field(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if "\n" not in text and len(text) < _LONG_ROW:
        return f"{key}: {text}"
    body = "\n".join(f"  {line}" for line in text.split("\n"))
    return f"{key}:\n{body}"
