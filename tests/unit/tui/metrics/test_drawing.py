"""What a plot shows, without a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.tui.metrics.conftest import row
from tui.metrics.arrangement import LEAST_ROWS, arrange, fits, packed
from tui.metrics.charts import charts_of, shown, title
from tui.metrics.curves import Curves
from tui.metrics.drawing import Drawing, Pair, Size, Stroke, dashes, draw, markers
from tui.metrics.options import Options
from tui.metrics.plot import title as title_of
from tui.metrics.values import rows, sparkline

if TYPE_CHECKING:
    from daemon.client.answers import Metric

SIZE = Size(columns=40, rows=10)


def training(steps: int = 20, offset: float = 0.0) -> Curves:
    found: list[Metric] = []
    for step in range(1, steps + 1):
        found.append(row(len(found) + 1, step, "train_loss", 3.0 / step + offset))
        if step % 5 == 0:
            found.append(row(len(found) + 1, step, "val_loss", 4.0 / step + offset))
    return Curves().extended(found, {})


def loss(pair: Pair, options: Options | None = None, size: Size = SIZE) -> Drawing:
    (chart, *_) = charts_of(pair.names, apart=pair.other is not None)
    return draw(chart, pair, options or Options(), size)


def test_known_names_stand_together_and_unknown_ones_alone() -> None:
    names = ["speed_of_light", "val_loss", "peak_memory_bytes", "train_loss", "it_per_sec"]
    charts = charts_of(names)
    assert [chart.names for chart in charts] == [
        ("train_loss", "val_loss"),
        ("peak_memory_bytes",),
        ("speed_of_light",),
        ("it_per_sec",),
    ]
    assert [chart.title for chart in charts][1:3] == ["Peak memory, GB", "Speed of light"]
    apart = charts_of(names, apart=True)
    assert [chart.key for chart in apart][:2] == ["train_loss", "val_loss"]
    assert [chart.extra for chart in apart] == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("generation_tps", "Generation tokens/s"),
        ("load_seconds", "Load, s"),
        ("step_images_per_second", "Step images/s"),
        ("grad_norm", "Grad norm"),
        ("_", "_"),
    ],
)
def test_titles(name: str, text: str) -> None:
    assert title(name) == text


def test_bytes_are_shown_as_gigabytes() -> None:
    assert shown("peak_memory_bytes", 7.5e9) == "7.5"


def test_two_lines_differ_in_their_stroke() -> None:
    drawing = loss(Pair(this=training()))
    assert [line.stroke for line in drawing.lines] == [Stroke.SOLID, Stroke.MARKED]
    assert [entry.text for entry in drawing.legend] == ["train 0.15", "val 0.2"]
    assert drawing.legend[1].best == ("0.2", "20")


def test_a_title_is_as_long_as_there_is_room() -> None:
    drawing = loss(Pair(this=training()))
    assert title_of(drawing, 60).plain == "Loss  ⠒⠒⠒ train 0.15  ⠒●⠒ val 0.2  best 0.2 at 20"
    assert title_of(drawing, 40).plain == "Loss ⠒train 0.15 ●val 0.2 best 0.2@20"


def test_of_two_jobs_this_one_is_first_in_the_legend_and_drawn_last() -> None:
    pair = Pair(this=training(), other=training(30, 1.0), number=7, other_number=5)
    drawing = loss(pair)
    assert [line.stroke for line in drawing.lines] == [Stroke.DASHED, Stroke.SOLID]
    assert [entry.text for entry in drawing.legend] == ["#7 0.15", "#5 1.1"]
    assert drawing.x_limits == (1, 30)


def test_a_log_scale_is_for_losses_and_leaves_out_what_has_no_place() -> None:
    rows = [row(n, n, "train_loss", value) for n, value in enumerate((0.0, 1.0, 10.0), 1)]
    drawing = loss(Pair(this=Curves().extended(rows, {})), Options(log=True))
    assert drawing.lines[0].y.tolist() == [0.0, 1.0]
    none = Curves().extended([row(1, 1, "train_loss", -1), row(2, 2, "train_loss", -2)], {})
    assert "log scale" in (loss(Pair(this=none), Options(log=True)).note or "")
    other = Curves().extended([row(1, 1, "x", 10.0), row(2, 2, "x", 20.0)], {})
    assert loss(Pair(this=other), Options(log=True)).lines[0].y.tolist() == [10.0, 20.0]


def test_smoothing_leaves_the_numbers_alone() -> None:
    pair = Pair(this=training())
    plain, smooth = loss(pair), loss(pair, Options(smooth=True))
    assert smooth.legend == plain.legend
    assert smooth.lines[0].y[-1] > plain.lines[0].y[-1]


def test_the_tail_is_the_last_tenth() -> None:
    drawing = loss(Pair(this=training(101)), Options(tail=True))
    assert drawing.x_limits == (91, 101)
    assert drawing.lines[0].x[0] == 90
    assert drawing.y_limits[1] < 0.1


def test_a_resume_is_marked_where_it_is_in_sight() -> None:
    first = [row(n, n, "train_loss", 1.0) for n in range(1, 90)]
    curves = Curves().extended([*first, row(90, 61, "train_loss", 1.0, attempt=2)], {2: 60})
    assert loss(Pair(this=curves)).marks == [60]
    assert loss(Pair(this=curves), Options(tail=True)).marks == [60]
    long = curves.extended([row(91, 900, "train_loss", 1.0, attempt=2)], {})
    assert loss(Pair(this=long), Options(tail=True)).marks == []


def test_constant_values_and_a_single_step_have_room() -> None:
    drawing = loss(Pair(this=Curves().extended([row(1, 5, "train_loss", 2.0)], {})))
    assert drawing.x_limits == (4, 6)
    assert drawing.y_limits == (1.8, 2.2)


def test_nothing_finite_is_said() -> None:
    rows = [row(n, n, "train_loss", float("nan")) for n in (1, 2)]
    drawing = loss(Pair(this=Curves().extended(rows, {})))
    assert drawing.lines == ()
    assert drawing.note == "no finite value to show"


def test_a_million_rows_are_few_points_on_the_screen() -> None:
    curves = Curves()
    for start in range(0, 1_000_000, 20_000):
        page = [row(n, n, "train_loss", 1.0 + n % 7) for n in range(start + 1, start + 20_001)]
        curves = curves.extended(page, {})
    (line,) = loss(Pair(this=curves)).lines
    assert len(line.x) <= 2 * 2 * SIZE.columns + 6
    assert (line.y.min(), line.y.max()) == (1.0, 7.0)


def test_dashes_are_pieces_of_the_line() -> None:
    (line, *_) = loss(Pair(this=training())).lines
    pieces = dashes(line, 1, 20, 40)
    assert len(pieces) == 8
    for x, y in pieces:
        assert np.all(np.diff(x) > 0)
        assert np.interp(x, line.x, line.y) == pytest.approx(y)


def test_of_many_points_few_get_a_marker() -> None:
    (line, *_) = loss(Pair(this=training(400))).lines
    x, _ = markers(line, 1, 400, 40)
    assert len(x) <= 11
    assert 400 - 399 / 40 < x[-1] < 400  # not under the frame


def test_small_places_get_a_table() -> None:
    assert not fits(78, 10)
    assert not fits(20, 50)
    assert fits(55, 30)


@pytest.mark.parametrize("count", range(1, 8))
@pytest.mark.parametrize("width", [30, 55, 100, 190])
def test_plots_fill_their_rows(width: int, count: int) -> None:
    place = arrange(width, 44, count)
    assert sum(place.spans) == place.columns * len(place.rows)
    assert len(place.spans) == count
    assert min(place.rows) >= LEAST_ROWS
    assert sum(place.rows) == 44 or min(place.rows) == LEAST_ROWS


def test_words_are_packed_into_lines() -> None:
    assert packed(["ab", "cd", "ef"], 6, 2) == [[0, 1], [2]]
    assert packed(["ab", "cd", "ef"], 2, 2) is None
    assert packed([], 5, 1) == [[]]


def test_the_table_has_a_row_for_everything() -> None:
    curves = training().extended([row(99, 20, "seconds", 7.5)], {})
    found = {entry.title: entry for entry in rows(Pair(this=curves), 8)}
    assert found["Validation loss"].lowest == "0.2 at 20"
    assert len(found["Train loss"].course) == 8
    assert (found["Seconds"].last, found["Seconds"].course) == ("7.5", "")


def test_sparklines() -> None:
    assert sparkline(np.arange(8.0), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.ones(5), 3) == "▄▄▄"
    assert sparkline(np.array([np.nan]), 3) == ""


def test_choices_stay_when_the_plots_do_not() -> None:
    charts = charts_of(["train_loss", "it_per_sec"])
    options = Options().toggled(charts, 1).toggled(charts, 2).toggled(charts, 9)
    assert [options.shows(chart) for chart in charts] == [False, True]
    assert Options(log=True, smooth=True, tail=True).words() == [
        "log scale",
        "smoothed (moving average, 0.9)",
        "last 10%",
    ]
