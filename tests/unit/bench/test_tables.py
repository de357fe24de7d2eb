from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.bench import compare, tutorial
from daemon.bench.layout import fold
from daemon.bench.llama import KEY as LLAMA
from daemon.bench.record import Figure, Result
from daemon.bench.tables import page
from daemon.errors import UsageError
from tests.unit.bench.records import decoding, figure, pictures, record, training, twice

VERSIONS = {"mlx": "0.32.4", "mlx-lm": "0.32.2", "numpy": "2.4.1", "python": "3.11.7"}


def row_of(lines: list[str], start: str) -> list[str]:
    return next(line.split() for line in lines if line.strip().startswith(start))


def test_training_stands_beside_the_tutorials_machines() -> None:
    lines = list(page(record(training(98.0, 100.0, 101.0)), None))
    assert lines[0].startswith("AMD EPYC (cpu, 2 processors), memory 20 GB/s measured; mlx 0.32.4")
    assert row_of(lines, "this machine")[2:] == ["small", "0.5", "100", "2.0%", "900", "MB"]
    assert row_of(lines, "M2 Ultra *")[3:] == ["Llama", "7B", "-", "475", "-", "-"]
    assert row_of(lines, "M2 Max *")[3:] == ["Llama", "7B", "0.716", "290.4", "-", "-"]
    assert lines[-1].startswith("* the MLX tutorial's (December 2023): another machine and another")


def test_decoding_shows_bytes_bandwidth_ceiling_and_share() -> None:
    lines = list(page(record(decoding(30.0, 31.0)), None))
    wanted = ["small", "30.5", "1.6%", "0.5", "20", "40", "76%"]
    assert row_of(lines, "this machine")[2:] == wanted
    assert row_of(lines, "M2 Max *")[-6:] == ["!", "-", "14.22", "400", "28.13", "107%"]
    assert not any("llama.cpp" in line for line in lines)


def test_llama_cpp_gets_a_column_where_it_was_measured() -> None:
    result = decoding(30.0)
    result = replace(result, figures=(*result.figures, figure(LLAMA, 33.0, 35.0)))
    lines = list(page(record(result), None))
    assert lines[3].endswith("ceiling         llama.cpp")
    assert lines[4].endswith("tok/s  of it      tok/s")
    assert row_of(lines, "this machine")[-1] == "34"
    assert row_of(lines, "M2 Max *")[-1] == "-"


def test_pictures_stand_beside_the_tutorials_where_pytorch_is_not_here() -> None:
    lines = list(page(record(pictures(b1=2.0, b2=1.25, b3=1.0)), None))
    assert row_of(lines, "1 ") == ["1", "2", "-", "12.5", "1", "GB", "4.17", "6.25"]
    assert row_of(lines, "2 ")[-2:] == ["5.88", "7.14"]
    assert row_of(lines, "3 ")[-2:] == ["-", "-"]
    assert "tutorial's  tutorial's" in lines[3]
    assert "MLX *   PyTorch *" in lines[4]


def test_pytorchs_numbers_replace_the_tutorials() -> None:
    result = pictures(b1=2.0)
    rival = (
        figure("torch.seconds_per_picture@1", 5.0, unit="s", lower=True),
        figure("torch.step_pictures_per_sec@1", 5.5),
    )
    lines = list(page(record(replace(result, figures=(*result.figures, *rival))), None))
    assert row_of(lines, "1 ")[-4:] == ["5", "5.5", "2.50", "times"]
    assert not any("tutorial" in line for line in lines)


@pytest.mark.parametrize("table", ["train", "infer", "diffuse"])
def test_a_failed_table_says_so_where_its_numbers_would_stand(table: str) -> None:
    failed = Result(table=table, model="small", failures=("job 3 (bench) failed: no memory",))
    lines = list(page(record(failed), None))
    assert any("failed" in line.split() for line in lines)
    assert "! job 3 (bench) failed: no memory" in lines


def test_what_a_terminal_is_too_narrow_for_is_cut_in_the_models_name() -> None:
    result = replace(training(100.0), model="organisation/a-model-with-a-very-long-name")
    lines = [line for line in page(record(result), 70) if line.startswith("this machine")]
    assert len(lines[0]) <= 70
    assert "…" in lines[0]


def rivals(batch: int) -> tuple[Figure, ...]:
    return (
        figure(f"torch.seconds_per_picture@{batch}", 123.4, unit="s", lower=True),
        figure(f"torch.step_pictures_per_sec@{batch}", 0.1234),
    )


@pytest.mark.parametrize("rival", [False, True], ids=["alone", "beside others"])
def test_no_line_is_wider_than_a_terminal_of_80_columns(*, rival: bool) -> None:
    drawn, decoded = pictures(b1=61.25, b16=104.5), decoding(87.5, 105.5)
    if rival:
        drawn = replace(drawn, figures=(*drawn.figures, *rivals(1), *rivals(16)))
        decoded = replace(decoded, figures=(*decoded.figures, figure(LLAMA, 1033.0)))
    trained = replace(training(98.0, 150.0), model="organisation/a-model-with-a-very-long-name")
    now = record(trained, decoded, drawn, device="AMD EPYC 7R13 Processor", versions=VERSIONS)
    before = record(trained, drawn)
    for lines in (page(now, 80), compare.page(now, before, "kept.json of 2026-11-25", 80)):
        assert max(map(len, lines)) <= 80
    assert max(map(len, page(now, None))) > 80


def test_a_sentence_is_folded_between_words_and_whole_in_a_pipe() -> None:
    said = "memory is read at 20 GB/s by two processors"
    assert list(fold(said, 24)) == ["memory is read at 20", "  GB/s by two processors"]
    assert list(fold(said, None)) == [said]


def test_changes_are_in_percent_and_judged_by_the_direction_that_is_better() -> None:
    before = record(training(100.0, 101.0), twice(pictures(b1=2.0, b2=1.0)))
    now = record(training(110.0, 111.0), twice(pictures(b1=2.5, b2=1.0)))
    lines = list(compare.page(now, before, "an earlier run", None))
    assert lines[0] == "Compared with an earlier run"
    assert row_of(lines, "train.tokens_per_sec")[1:] == ["100.5", "110.5", "+10.0%", "better"]
    assert row_of(lines, "diffuse.seconds_per_picture@1")[1:] == ["2", "2.5", "+25.0%", "worse"]
    assert row_of(lines, "diffuse.seconds_per_picture@2")[1:] == ["1", "1", "+0.0%"]
    assert row_of(lines, "diffuse.peak_memory@2")[1:] == ["2", "GB", "2", "GB", "+0.0%"]
    assert not any("no verdict" in line for line in lines)
    assert not any(line.startswith("differs") for line in lines)


def test_one_run_on_a_side_gets_no_verdict() -> None:
    once, often = record(training(100.0)), record(training(200.0, 201.0))
    for now, before in ((once, once), (once, often), (often, once)):
        lines = list(compare.page(now, before, "it", None))
        words = " ".join(row_of(lines, "train.tokens_per_sec")[3:])
        assert words in {"+0.0%", "-50.1% no verdict", "+100.5% no verdict"}


def test_repeats_that_overlap_show_no_change() -> None:
    lines = list(compare.page(record(training(99.0, 104.0)), record(training(98.0, 100.0)), "", 99))
    assert " ".join(row_of(lines, "train.tokens_per_sec")[3:]) == "+2.5% within the spread"


def test_what_differs_besides_the_numbers_is_said() -> None:
    before = record(training(100.0, facts={"model_fingerprint": "a"}), decoding(10.0))
    now = record(
        replace(training(100.0, facts={"model_fingerprint": "b"}), settings={"iters": 4}),
        replace(decoding(10.0), model="large"),
        device="Apple M2 Ultra",
        versions={"mlx": "0.33.0", "numpy": "2"},
    )
    found = compare.differences(replace(now, quick=True), before)
    assert found == [
        "machine: AMD EPYC → Apple M2 Ultra",
        "mlx: 0.32.4 → 0.33.0",
        "numpy: none → 2",
        "--quick: no → yes",
        "train, model: the weights of small are others",
        "train, iters: 40 → 4",
        "train, rank: 8 → none",
        "infer, model: small → large",
    ]


def test_a_comparison_with_the_tutorial_is_one_with_each_of_its_machines() -> None:
    machines = compare.earlier("tutorial")
    assert list(machines) == ["the tutorial's M2 Ultra", "the tutorial's M2 Max"]
    now = record(training(95.0), pictures(b1=5.0))
    lines = list(compare.page(now, tutorial.M2_ULTRA, "the tutorial's M2 Ultra", None))
    found = row_of(lines, "train.tokens_per_sec")[1:]
    assert found == ["475", "95", "-80.0%", "no", "verdict"]
    assert row_of(lines, "diffuse.step_pictures_per_sec@1")[1:3] == ["4.17", "5"]
    assert sum(line.startswith("no verdict: one run alone") for line in lines) == 1
    assert "differs: machine: M2 Ultra → AMD EPYC" in lines
    assert "differs: train, model: Llama 7B → small" in lines


def test_runs_without_a_common_figure_and_files_that_are_none() -> None:
    lines = list(compare.page(record(training(1.0)), record(decoding(1.0)), "it", None))
    assert lines == ["Compared with it", "no figure is in both"]
    with pytest.raises(UsageError, match="cannot be read"):
        compare.earlier("no-such-file.json")
