"""The picture of a training: loss above, memory below, over the same iterations.

The rule this module protects: drawing changes nothing for anybody else. Figures are objects of
their own (no pyplot, no global style), and matplotlib is imported when the first one is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, float]
Points = tuple[list[float], list[float]]

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#AA4A8F", "#56B4E9"
INK, FAINT = "#303030", "#D9D9D9"

_INCHES, _DPI = (9.0, 6.2), 160
_SMOOTH_FROM = 40
_LOG_FROM = 12.0
_GIB = 2.0**30


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One curve: the metric's name, what the reader sees, colour and style."""

    metric: str
    label: str
    color: str
    style: str = "-"


_MEMORY = (
    _Line(metric="peak_memory_bytes", label="peak", color=PURPLE, style=(0, (4, 2))),  # type: ignore[arg-type]
    _Line(metric="active_memory_bytes", label="active", color=GREEN),
    _Line(metric="cache_memory_bytes", label="cache", color=SKY),
)


def draw_training(path: Path, rows: Sequence[Row], *, title: str) -> None:
    """Write ``path``, a PNG of the losses and memory in the rows of ``metrics.jsonl``.

    Raises:
        DiskFullError: the disk is full; no file is left behind.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.14, hspace=0.04)
    figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    losses, memory = _panels(figure, title)
    _set_iterations(memory, rows)
    _draw_losses(losses, rows)
    _draw_memory(memory, rows)
    with whole_file(path) as file:
        figure.savefig(file, format="png")


def points(rows: Iterable[Row], metric: str) -> Points:
    """Return iterations and values of ``metric`` from the rows that have it."""
    found = [(row["iteration"], row[metric]) for row in rows if metric in row]
    return [x for x, _ in found], [y for _, y in found]


def smoothed(values: Sequence[float], span: int) -> list[float]:
    """Return the exponential moving average, corrected for its start as in Adam.

    ``span`` is the number of points with about 86 % of the weight, as in pandas' ``ewm``.
    """
    keep = 1 - 2 / (span + 1)
    average, weight, result = 0.0, 0.0, []
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        result.append(average / weight)
    return result


def _panels(figure: Figure, title: str) -> tuple[Axes, Axes]:
    grid = figure.add_gridspec(2, 1, height_ratios=(2.4, 1))
    losses = figure.add_subplot(grid[0])
    memory = figure.add_subplot(grid[1], sharex=losses)
    for axes in (losses, memory):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(which="both", colors=INK, length=0, labelsize=9)
        axes.grid(axis="y", color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
    losses.tick_params(labelbottom=False)
    losses.set_title(title, loc="left", fontsize=13, color=INK, pad=12, parse_math=False)
    losses.set_ylabel("loss (nats per token)", color=INK, fontsize=9.5)
    memory.set_ylabel("memory (GiB)", color=INK, fontsize=9.5)
    memory.set_xlabel("iteration", color=INK, fontsize=9.5)
    return losses, memory


def _set_iterations(axes: Axes, rows: Sequence[Row]) -> None:
    """Let both panels span the iterations exactly, so that labels begin where curves end."""
    from matplotlib.ticker import MaxNLocator

    last = max((row["iteration"] for row in rows), default=1)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))


def _draw_losses(axes: Axes, rows: Sequence[Row]) -> None:
    x, train = points(rows, "train_loss")
    valid_x, valid = points(rows, "val_loss")
    labels: list[_Label] = []
    if train:
        labels.append(_draw_train(axes, x, train))
    if valid:
        axes.plot(
            valid_x,
            valid,
            color=ORANGE,
            linewidth=1.6,
            marker="o",
            markersize=5.5,
            clip_on=False,
            zorder=4,
        )
        labels.append(_Label(y=valid[-1], text=f"validation {valid[-1]:.3f}", color=ORANGE))
    test = points(rows, "test_loss")[1]
    if test:
        axes.axhline(test[-1], color=INK, linewidth=1, linestyle=(0, (1, 2)))
        labels.append(_Label(y=test[-1], text=f"test {test[-1]:.3f}", color=INK))
    _scale(axes, [*train, *valid, *test])
    _label(axes, labels)


def _draw_train(axes: Axes, x: list[float], y: list[float]) -> _Label:
    line = y
    if len(y) >= _SMOOTH_FROM:
        axes.plot(x, y, color=BLUE, linewidth=0.8, alpha=0.3)
        line = smoothed(y, max(5, len(y) // 20))
    marker = "o" if len(y) <= _SMOOTH_FROM // 2 else ""
    axes.plot(x, line, color=BLUE, linewidth=2, marker=marker, markersize=3.5, clip_on=False)
    return _Label(y=line[-1], text=f"train {line[-1]:.3f}", color=BLUE)


def _draw_memory(axes: Axes, rows: Sequence[Row]) -> None:
    labels: list[_Label] = []
    highest = 0.0
    for line in _MEMORY:
        x, y = points(rows, line.metric)
        if y:
            gib = [value / _GIB for value in y]
            marker = "o" if len(y) == 1 else ""
            axes.plot(
                x,
                gib,
                color=line.color,
                linewidth=1.6,
                linestyle=line.style,
                marker=marker,
                clip_on=False,
            )
            highest = max(highest, *gib)
            text = f"{line.label} {gib[-1]:.2f}"
            labels.append(_Label(y=gib[-1], text=text, color=line.color))
    axes.set_ylim(0, 1.12 * highest or 1)
    _label(axes, labels)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Choose a logarithmic axis where one curve would otherwise lie flat on the ground."""
    if values and min(values) > 0 and max(values) / min(values) > _LOG_FROM:
        from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.margins(y=0.1)


@dataclass(frozen=True, kw_only=True)
class _Label:
    """A name written at the right end of its curve."""

    y: float
    text: str
    color: str


def _label(axes: Axes, labels: Iterable[_Label]) -> None:
    """Write each label at its curve's end, moved apart where they would overlap."""
    to_axes: Any = axes.transData + axes.transAxes.inverted()
    axes.autoscale_view()
    gap = 0.065 * 4.2 / (axes.get_position().height * _INCHES[1])
    at = sorted(((to_axes.transform((1, label.y))[1], label) for label in labels), key=_height)
    for place, (_, label) in zip(_apart([y for y, _ in at], gap), at, strict=True):
        axes.text(
            1.016, place, label.text, color=label.color, transform=axes.transAxes,
            fontsize=9.5, fontweight="bold", va="center",
        )  # fmt: skip


def _height(place: tuple[float, _Label]) -> float:
    return place[0]


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return rising ``heights``, at least ``gap`` apart; those that were too close move equally."""
    placed = list(heights)
    for _ in range(8 * len(placed)):
        for low in range(len(placed) - 1):
            missing = gap - (placed[low + 1] - placed[low])
            if missing > 0:
                placed[low] -= missing / 2
                placed[low + 1] += missing / 2
    return placed
