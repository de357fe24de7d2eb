"""Every bad row is refused at submission, by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import SpecRefusedError
from daemon.rows import RowCounts, check_prompts, check_training_data, split_sizes
from daemon.specs import TrainSpec

HASH = "0" * 64


def make_spec(places: tuple[str, ...], **options: Any) -> TrainSpec:
    data = {place: {"name": f"{place}.jsonl", "sha256": HASH} for place in places}
    return TrainSpec.model_validate({"model": "tiny", "data": data, "batch_size": 1, **options})


def check(folder: Path, contents: dict[str, str | bytes], **options: Any) -> RowCounts:
    files = {}
    for place, content in contents.items():
        path = folder / f"{place}.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        files[f"data.{place}"] = (path.name, path)
    return check_training_data(files, make_spec(tuple(contents), **options))


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


TEXT = {"text": "hello"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
PAIR = {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("row", "form"), [(TEXT, "text"), (CHAT, "messages"), (PAIR, "completion")]
)
def test_each_form_is_counted(tmp_path: Path, row: dict[str, Any], form: str) -> None:
    counts = check(tmp_path, {"train": lines(*[row] * 7), "valid": lines(row), "test": lines(row)})
    assert counts == RowCounts(train=7, valid=1, test=1, form=form)


def test_blank_lines_a_byte_order_mark_and_crlf_are_tolerated(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b"}'
    assert check(tmp_path, {"train": content}).train == 2


def test_one_file_is_split(tmp_path: Path) -> None:
    counts = check(tmp_path, {"rows": lines(*[TEXT] * 24)})
    assert (counts.train, counts.valid) == (22, 2) == split_sizes(24)


BAD_LINES: list[tuple[str | bytes, str]] = [
    ('{"text": "a"', r"rows\.jsonl:2: not JSON: .*column 1[23]"),
    ("[1, 2]", r"rows\.jsonl:2: a row is a JSON object, not \[1, 2\]"),
    ('"text"', "a row is a JSON object"),
    ('{"texts": "a"}', "no usable key; its keys are: texts"),
    ("{}", "no usable key; its keys are: none"),
    ('{"text": 5}', "text must be text, not 5"),
    ('{"text": null}', "text must be text, not null"),
    ('{"text": ""}', "text is empty"),
    ('{"prompt": "a", "completion": ["b"]}', r"completion must be text, not \[\"b\"\]"),
    ('{"prompt": "a"}', "no usable key; its keys are: prompt"),
    ('{"messages": []}', r"messages must be a list of messages, not \[\]"),
    ('{"messages": ["hi"]}', "message 1 must be an object, not hi"),
    ('{"messages": [{"role": "boss", "content": "a"}]}', "message 1 has role boss"),
    ('{"messages": [{"role": ["user"], "content": "a"}]}', "message 1 has role"),
    ('{"messages": [{"role": "user"}]}', "message 1: content must be text, not null"),
    ('{"messages": [{"role": "user", "content": "a"}], "tools": 3}', "tools must be a list"),
    ('{"text": NaN}', "NaN is not a JSON number"),
    ('{"text": "a", "weight": -Infinity}', "-Infinity is not a JSON number"),
    ('{"text": "a\\ud800b"}', r"\\ud800 is half a character"),
    (b'{"text": "caf\xe9"}', r"not UTF-8 at byte 14 of the line \(e9"),
    ("[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES)
def test_a_bad_row_is_refused_by_line(tmp_path: Path, line: str | bytes, words: str) -> None:
    bad = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(SpecRefusedError, match=words) as caught:
        check(tmp_path, {"rows": b"\n" + bad + b"\n"})
    assert caught.value.message.startswith("rows.jsonl:2: ")
    assert caught.value.field == "data.rows"
    assert len(caught.value.message) < 200


def test_rows_of_two_forms_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecRefusedError, match=r"rows\.jsonl:3: this is a messages row, but"):
        check(tmp_path, {"rows": lines(TEXT, TEXT, CHAT)})


def test_half_a_pair_that_has_its_other_half_is_a_character(tmp_path: Path) -> None:
    assert check(tmp_path, {"train": '{"text": "\\ud83d\\ude00"}'}).train == 1


def test_long_values_are_shortened(tmp_path: Path) -> None:
    with pytest.raises(SpecRefusedError, match="…") as caught:
        check(tmp_path, {"train": json.dumps({"messages": "x" * 10_000})})
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("contents", "options", "words"),
    [
        ({"train": ""}, {}, "train.jsonl has no rows"),
        ({"train": "\n \n"}, {}, "train.jsonl has no rows"),
        ({"train": lines(TEXT), "valid": ""}, {}, "valid.jsonl has no rows"),
        ({"rows": lines(TEXT)}, {}, "has one row"),
        ({"train": lines(TEXT, TEXT)}, {"batch_size": 3}, "batch_size = 3 is more than the 2 rows"),
        ({"rows": lines(*[TEXT] * 4)}, {"batch_size": 4}, "more than the 3 rows for training"),
        ({"train": lines(TEXT)}, {"test": True}, "there are no test rows"),
        ({"train": lines(TEXT), "valid": lines(PAIR)}, {}, "has completion rows, but train.jsonl"),
        ({"train": lines(TEXT)}, {"mask_prompt": True}, "mask_prompt needs to know"),
        (
            {"train": lines({"messages": CHAT["messages"][:1]})},
            {"mask_prompt": True},
            "the last of several messages must be the assistant's",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, contents: dict[str, str | bytes], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecRefusedError, match=words):
        check(tmp_path, contents, **options)


def test_a_small_validation_set_is_noted(tmp_path: Path) -> None:
    contents: dict[str, str | bytes] = {"train": lines(*[TEXT] * 4), "valid": lines(TEXT)}
    notes = check(tmp_path, contents, batch_size=4).notes
    assert notes == ("validation uses batches of 1: there are no more validation rows",)


def test_prompts_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        lines({"prompt": "a"}, {"prompt": "b", "expected": "c"}, {"prompt": "d", "id": 1})
    )
    assert check_prompts("p.jsonl", path) == 3


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "a"}, "p.jsonl:1: no usable key; its keys are: text"),
        ({"prompt": 1}, "p.jsonl:1: prompt must be text, not 1"),
        ({"prompt": "a", "expected": 1}, "p.jsonl:1: expected must be text, not 1"),
    ],
)
def test_bad_prompts_are_refused(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(lines(row))
    with pytest.raises(SpecRefusedError, match=words):
        check_prompts("p.jsonl", path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecRefusedError, match=r"gone\.jsonl cannot be read: No such file"):
        check_prompts("gone.jsonl", tmp_path / "gone.jsonl")
