"""The demo's rows are always the same, and acceptable as training data."""

from __future__ import annotations

from pathlib import Path

from daemon import demo_rows
from daemon.rows import check_training_data
from daemon.specs import InferSpec, TrainSpec


def spec() -> TrainSpec:
    files = {name: {"name": f"{name}.jsonl", "sha256": "0" * 64} for name in ("train", "valid")}
    return TrainSpec.model_validate({**demo_rows.TRAINING, "model": "smollm2", "data": files})


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    folders = [demo_rows.write_demo_data(tmp_path / name, 3) for name in "ab"]
    other = demo_rows.write_demo_data(tmp_path / "c", 4)
    contents = [(folder / "train.jsonl").read_bytes() for folder in (*folders, other)]
    assert contents[0] == contents[1] != contents[2]


def test_the_rows_pass_the_checks(tmp_path: Path) -> None:
    folder = demo_rows.write_demo_data(tmp_path, 3)
    files = {f"data.{name}": (name, folder / f"{name}.jsonl") for name in ("train", "valid")}
    counts = check_training_data(files, spec())
    assert (counts.train, counts.valid) == (demo_rows.TRAIN_ROWS, demo_rows.VALID_ROWS)
    assert counts.form == "completion"


def test_every_answer_is_a_query_of_the_grammar() -> None:
    rows = demo_rows.generate_rows(1)
    for _ in range(200):
        row = next(rows)
        head, columns, question, end = row["prompt"].split("\n")
        table = head.removeprefix("table: ")
        assert columns.startswith("columns: ")
        assert question.startswith("Q: ")
        assert end == "A:"
        assert row["completion"].startswith("SELECT ")
        assert f" FROM {table} WHERE " in row["completion"]


def test_no_training_row_has_the_questions_table() -> None:
    asked = demo_rows.QUESTION.split("\n")[0].removeprefix("table: ")
    assert asked not in {table.name for table in demo_rows.TABLES}
    InferSpec.model_validate(
        {**demo_rows.INFERENCE, "model": "smollm2", "prompt": demo_rows.QUESTION}
    )
