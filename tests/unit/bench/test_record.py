from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.bench.record import SCHEMA, Record, read_record, write_record
from daemon.errors import UsageError
from tests.unit.bench.records import decoding, figure, pictures, record, training


def test_a_kept_run_is_read_as_it_was(tmp_path: Path) -> None:
    run = record(training(99.0, 101.0, 100.0), decoding(11.0), pictures(b1=2.0, b2=1.5))
    write_record(tmp_path / "run.json", run)
    assert read_record(tmp_path / "run.json") == run


def test_the_file_says_every_jobs_number_median_and_spread() -> None:
    run = record(training(90.0, 101.0, 100.0)).to_dict()
    assert run["schema"] == SCHEMA
    assert run["machine"]["versions"] == {"mlx": "0.32.4"}
    found = run["results"][0]["figures"][1]
    assert found == {
        "key": "train.tokens_per_sec",
        "unit": "tok/s",
        "values": (90.0, 101.0, 100.0),
        "jobs": (1, 2, 3),
        "lower_is_better": False,
        "repeats": 3,
        "median": 100.0,
        "spread": pytest.approx(0.1),
    }


def test_figures_are_found_by_their_tables_name_and_by_their_own() -> None:
    result = pictures(b2=1.5, b16=1.0, b1=2.0)
    assert result.median("seconds_per_picture@16") == 1.0
    assert result.median("diffuse.seconds_per_picture@16") == 1.0
    assert result.median("torch.seconds_per_picture@16") is None
    assert result.batches() == [1, 2, 16]
    assert figure("a", 0.0).spread == 0.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{", "it is not JSON"),
        ("[]", "has the form None"),
        ('{"schema": 99}', "has the form 99; this studioq reads form 1"),
        (json.dumps({"schema": SCHEMA, "date": "today"}), "is no record of studioq bench"),
    ],
)
def test_another_file_is_refused_with_the_reason(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_record(path)
    assert (
        caught.value.remedy == "give a file that studioq bench --save wrote, or the word tutorial"
    )


def test_a_figure_without_values_is_refused(tmp_path: Path) -> None:
    data = record(decoding(11.0)).to_dict()
    data["results"][0]["figures"][0]["values"] = []
    (tmp_path / "run.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="a figure without values"):
        read_record(tmp_path / "run.json")


def test_a_run_has_failed_if_one_of_its_tables_has() -> None:
    assert not record(training(1.0), decoding(1.0)).failed
    assert record(training(1.0), decoding(1.0, failures=("job 3 failed: why",))).failed
    assert isinstance(Record.from_dict(record(training(1.0)).to_dict()), Record)
