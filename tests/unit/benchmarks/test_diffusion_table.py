from __future__ import annotations

from benchmarks.diffusion_table import Scale, failures, header, line, number, table_columns
from benchmarks.rates import Cell

SCALE = Scale(flops_per_step_image=1.6e12, ceiling=640e12)
OURS = Cell(name="studioq", batch=16, samples=(200.0,), warm_up_seconds=12.34, peak_bytes=3 * 2**30)
RIVAL = Cell(name="rival", batch=16, samples=(160.0,))
BROKEN = Cell(name="broken", batch=16, failure="RuntimeError: no compiler")


def test_a_row_says_all_that_was_measured() -> None:
    columns = table_columns(SCALE, ["rival", "broken"])
    cells = [part.strip() for part in line(columns, [OURS, RIVAL, BROKEN]).split("|")[1:-1]]
    assert cells[:7] == ["16", "200", "0.0 %", "320", "50.0 %", "3.00", "12.3"]
    assert cells[7:12] == ["160", "0.0 %", "-", "0.00", "1.25 times"]
    assert cells[12:17] == ["-", "-", "-", "0.00", "-"]
    assert cells[17:] == ["6.32", "8.79"]


def test_a_batch_that_the_tutorial_has_not_gets_no_number() -> None:
    columns = table_columns(SCALE, [])
    row = [Cell(name="studioq", batch=3, samples=(1.0,))]
    assert line(columns, row).endswith("- |")


def test_head_and_rows_have_the_same_columns() -> None:
    columns = table_columns(SCALE, ["rival"])
    titles, rule = header(columns).splitlines()
    row = line(columns, [OURS, RIVAL])
    assert titles.count("|") == rule.count("|") == row.count("|")


def test_failures_are_told_below() -> None:
    assert failures([OURS, BROKEN]) == ["batch 16, broken: RuntimeError: no compiler"]


def test_numbers_keep_three_digits() -> None:
    assert [number(value) for value in (None, 0.0123456, 30.0, 1234.5)] == [
        "-",
        "0.0123",
        "30.0",
        "1234",
    ]
