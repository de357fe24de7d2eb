"""Looks at every row of an uploaded jsonl file before the job is queued.

The rule this module protects: a bad row is refused with its file and line while the user is still
at the terminal, never in the middle of a training. Files are streamed line by line; no MLX.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from daemon.errors import SpecRefusedError
from daemon.specs import TrainSpec

ROLES = ("system", "user", "assistant", "tool", "developer")
MAX_LINE = 64 * 2**20
VALID_SHARE = 10
_SHOWN = 60
_BOM = b"\xef\xbb\xbf"

Row = dict[str, Any]
Files = Mapping[str, tuple[str, Path]]


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """How many rows a training has after the split, of which form, and what to tell its owner."""

    train: int
    valid: int
    test: int
    form: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a row stands, for messages; ``field`` is the spec's name of the file."""

    name: str
    line: int
    field: str

    def refuse(self, reason: str, remedy: str | None = None) -> NoReturn:
        raise SpecRefusedError(
            f"{self.name}:{self.line}: {reason}", field=self.field, remedy=remedy
        )


def check_training_data(files: Files, spec: TrainSpec) -> RowCounts:
    """Check every row of a training's files and whether they suffice for its batches.

    ``files`` maps the spec's places (``data.train``, ``data.valid``, ``data.test``, or
    ``data.rows``) to the name for messages and the file.

    Raises:
        SpecRefusedError: names file and line, or the option that does not fit the number of rows.
    """
    forms: dict[str, str] = {}
    counts = {"data.train": 0, "data.valid": 0, "data.test": 0}
    for field, (name, path) in files.items():
        counts[field], forms[field] = _check_file(field, name, path, mask_prompt=spec.mask_prompt)
    form = _one_form(files, forms)
    if "data.rows" in counts:
        rows = counts.pop("data.rows")
        counts["data.train"], counts["data.valid"] = split_sizes(rows)
        _check_split(files["data.rows"][0], rows)
    found = RowCounts(
        train=counts["data.train"],
        valid=counts["data.valid"],
        test=counts["data.test"],
        form=form,
        notes=tuple(_notes(counts, spec.batch_size)),
    )
    _check_sizes(found, spec)
    return found


def split_sizes(rows: int) -> tuple[int, int]:
    """Return how many of ``rows`` are for training and for validation: a tenth, at least one."""
    valid = max(1, round(rows / VALID_SHARE))
    return rows - valid, valid


def check_prompts(name: str, path: Path) -> int:
    """Check a file of prompts, ``{"prompt": …}`` with an optional ``"expected"``; return the count.

    Raises:
        SpecRefusedError: names file and line.
    """
    count = 0
    for line, row in read_rows(name, path, "prompts"):
        place = _Place(name=name, line=line, field="prompts")
        if "prompt" not in row:
            _no_key(place, row, 'a row of prompts is {"prompt": "…"}, optionally with "expected"')
        _text(place, row, "prompt")
        if row.get("expected") is not None:
            _text(place, row, "expected")
        count += 1
    return _not_empty(count, name, "prompts")


def read_rows(name: str, path: Path, field: str) -> Iterator[tuple[int, Row]]:
    """Yield the line number and object of every row that is not blank.

    Raises:
        SpecRefusedError: a line is not UTF-8, not JSON, too long, or not an object.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise SpecRefusedError(f"{name} cannot be read: {error.strerror}", field=field) from error
    with file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(_BOM)
            if not line.strip():
                continue
            place = _Place(name=name, line=number, field=field)
            yield number, _parse(place, line)


def row_form(row: Row) -> str | None:
    """Return which keys a row speaks with, in mlx-lm's order: completion, messages or text."""
    if "prompt" in row and "completion" in row:
        return "completion"
    return next((form for form in ("messages", "text") if form in row), None)


def _check_file(field: str, name: str, path: Path, *, mask_prompt: bool) -> tuple[int, str]:
    form: str | None = None
    count = 0
    for line, row in read_rows(name, path, field):
        place = _Place(name=name, line=line, field=field)
        found = row_form(row) or _no_key(place, row, _FORMS)
        form = form or found
        if found != form:
            place.refuse(
                f"this is a {found} row, but the rows before are {form} rows",
                "use one form in all rows",
            )
        _CHECKS[found](place, row, mask_prompt)
        count += 1
    return _not_empty(count, name, field), str(form)


def _parse(place: _Place, line: bytes) -> Row:
    if len(line) > MAX_LINE:
        place.refuse(f"the line is longer than {MAX_LINE // 2**20} MiB")
    try:
        row = json.loads(line.decode("utf-8").rstrip(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        shown = line[error.start : error.start + 4].hex(" ")
        place.refuse(
            f"not UTF-8 at byte {error.start + 1} of the line ({shown})", "save it as UTF-8"
        )
    except RecursionError:
        place.refuse("the JSON is nested too deeply")
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        column = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        place.refuse(f"not JSON: {reason}{column}: {_shorten(line.decode('utf-8'))}", _ONE_PER_LINE)
    if not isinstance(row, dict):
        place.refuse(f"a row is a JSON object, not {_shorten(row)}", _ONE_PER_LINE)
    if b"\\ud" in line or b"\\uD" in line:
        _no_surrogates(place, row)
    return row


_FORMS = (
    'a row is {"text": "…"}, {"prompt": "…", "completion": "…"} or '
    '{"messages": [{"role": "user", "content": "…"}, …]}'
)
_ONE_PER_LINE = "write one JSON object per line (jsonl)"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _no_surrogates(place: _Place, row: Row) -> None:
    """Refuse half of a surrogate pair: JSON can write it, no tokenizer can read it."""
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        bad = error.object[error.start]
        place.refuse(f"\\u{ord(bad):04x} is half a character (an unpaired surrogate)")


def _no_key(place: _Place, row: Row, allowed: str) -> NoReturn:
    keys = ", ".join(sorted(map(str, row))) or "none"
    place.refuse(f"no usable key; its keys are: {_shorten(keys)}", allowed)


def _text(place: _Place, row: Row, key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        place.refuse(f"{key} must be text, not {_shorten(value)}")
    return value


def _check_text(place: _Place, row: Row, mask_prompt: bool) -> None:
    if mask_prompt:
        place.refuse(
            "mask_prompt needs to know where the prompt ends, and a text row does not say",
            "use prompt and completion, or messages, or leave --mask-prompt out",
        )
    if not _text(place, row, "text"):
        place.refuse("text is empty")


def _check_completion(place: _Place, row: Row, mask_prompt: bool) -> None:
    del mask_prompt
    _text(place, row, "prompt")
    _text(place, row, "completion")
    _check_tools(place, row)


def _check_messages(place: _Place, row: Row, mask_prompt: bool) -> None:
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        place.refuse(f"messages must be a list of messages, not {_shorten(messages)}")
    for number, message in enumerate(messages, 1):
        _check_message(place, number, message)
    _check_tools(place, row)
    if mask_prompt and (len(messages) < 2 or messages[-1]["role"] != "assistant"):
        place.refuse("with mask_prompt, the last of several messages must be the assistant's")


def _check_message(place: _Place, number: int, message: object) -> None:
    if not isinstance(message, dict):
        place.refuse(f"message {number} must be an object, not {_shorten(message)}")
    role = message.get("role")
    if role not in ROLES:
        place.refuse(f"message {number} has role {_shorten(role)}", f"a role is {', '.join(ROLES)}")
    if message.get("content") is None and isinstance(message.get("tool_calls"), list):
        return
    if not isinstance(message.get("content"), str):
        place.refuse(
            f"message {number}: content must be text, not {_shorten(message.get('content'))}"
        )


def _check_tools(place: _Place, row: Row) -> None:
    tools = row.get("tools")
    if tools is not None and not (
        isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)
    ):
        place.refuse(f"tools must be a list of objects, not {_shorten(tools)}")


_CHECKS: dict[str, Callable[[_Place, Row, bool], None]] = {
    "text": _check_text,
    "completion": _check_completion,
    "messages": _check_messages,
}


def _not_empty(count: int, name: str, field: str) -> int:
    if not count:
        raise SpecRefusedError(f"{name} has no rows", field=field, remedy=_ONE_PER_LINE)
    return count


def _one_form(files: Files, forms: Mapping[str, str]) -> str:
    first, form = next(iter(forms.items()))
    for field, other in forms.items():
        if other != form:
            raise SpecRefusedError(
                f"{files[field][0]} has {other} rows, but {files[first][0]} has {form} rows",
                field=field,
                remedy="use one form in all files",
            )
    return form


def _check_split(name: str, rows: int) -> None:
    if rows < 2:
        raise SpecRefusedError(
            f"{name} has one row; one is kept for validation, so nothing is left to train on",
            field="data.rows",
            remedy="give at least two rows, or a folder with train.jsonl",
        )


def _check_sizes(counts: RowCounts, spec: TrainSpec) -> None:
    if spec.batch_size > counts.train:
        raise SpecRefusedError(
            f"batch_size = {spec.batch_size} is more than the {counts.train} rows for training",
            field="batch_size",
            remedy=f"choose --batch-size {counts.train} or less, or give more rows",
        )
    if spec.test and not counts.test:
        raise SpecRefusedError(
            "test = True, but there are no test rows",
            field="test",
            remedy="add test.jsonl to the data folder, or leave --test out",
        )


def _notes(counts: Mapping[str, int], batch_size: int) -> Iterator[str]:
    for field, what in (("data.valid", "validation"), ("data.test", "test")):
        if 0 < counts[field] < batch_size:
            yield f"{what} uses batches of {counts[field]}: there are no more {what} rows"


def _shorten(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str)
    text = text.strip()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
