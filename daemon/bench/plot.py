"""The picture of a run: three panels, one for each table, with the tutorial's numbers in grey.

The rule this module protects: what was not measured here is grey and named as the tutorial's.
matplotlib is imported when a picture is drawn, and nothing global of it is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.bench import tutorial
from daemon.bench.llama import KEY as LLAMA
from daemon.bench.record import Record, Result
from daemon.bench.tables import ceiling_of, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_INK, _FAINT, _GREY = "#303030", "#D9D9D9", "#9A9A9A"
_INCHES, _DPI = (13.0, 4.6), 150

Bar = tuple[str, float, str]


def draw(path: Path, record: Record) -> None:
    """Write a PNG of the record to ``path``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.12, wspace=0.06)
    figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, 3)
    for axes, (table, draw_panel) in zip(panels, _PANELS.items(), strict=True):
        result = record.result(table)
        _prepare(axes, _TITLES[table], result)
        if result is not None and result.figures:
            draw_panel(axes, record, result)
    date = record.date.partition("T")[0]
    figure.suptitle(f"studioq bench: {record.machine.device}, {date}", color=_INK, fontsize=13)
    figure.savefig(path, format="png")


_TITLES = {
    "train": "LoRA training, tokens/s",
    "infer": "Decoding, tokens/s",
    "diffuse": "Pictures, step-pictures/s by batch",
}


def _prepare(axes: Axes, title: str, result: Result | None) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(colors=_INK, length=0, labelsize=9)
    if result is None or not result.figures:
        why = "not measured" if result is None or not result.failures else "failed"
        axes.spines["bottom"].set_visible(False)
        axes.text(0.5, 0.5, why, ha="center", va="center", color=_GREY, transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])


def _training(axes: Axes, _: Record, result: Result) -> None:
    bars = [(f"{result.model},\nthis machine", result.median("tokens_per_sec") or 0.0, _BLUE)]
    _bars(axes, [*bars, *_published("train")])


def _published(table: str) -> list[Bar]:
    found: list[Bar] = []
    for record in tutorial.MACHINES:
        result = record.result(table)
        if result is not None:
            name = f"{result.model},\n{record.machine.device}, tutorial's"
            found.append((name, result.median("tokens_per_sec") or 0.0, _GREY))
    return found


def _bars(axes: Axes, bars: Sequence[Bar]) -> None:
    """Draw horizontal bars, the first one on top, each with its number."""
    names, values = [name for name, _, _ in bars], [value for _, value, _ in bars]
    colors = [color for _, _, color in bars]
    places = range(len(bars))
    axes.barh(places, values, color=colors, height=0.45)
    axes.spines["bottom"].set_visible(False)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlim(0, max(values) * 1.3 or 1.0)
    for place, value in zip(places, values, strict=True):
        axes.text(value, place, f"  {number(value)}", va="center", color=_INK, fontsize=9)


def _decoding(axes: Axes, record: Record, result: Result) -> None:
    bars: list[Bar] = [
        (f"{result.model},\nthis machine", result.median("tokens_per_sec") or 0.0, _BLUE)
    ]
    ceiling = ceiling_of(record.machine, result)
    if ceiling is not None and ceiling.tokens_per_second is not None:
        bars.append(("its ceiling by\nmemory bandwidth", ceiling.tokens_per_second, _FAINT))
    if (llama := result.median(LLAMA)) is not None:
        bars.append((f"{result.model},\nllama.cpp", llama, _GREEN))
    _bars(axes, [*bars, *_published("infer")])


def _diffusion(axes: Axes, _: Record, result: Result) -> None:
    published = tutorial.published_pictures()
    _line(axes, result, "diffuse", f"{result.model}, this machine", _BLUE)
    if not _line(axes, result, "torch", f"{result.model}, PyTorch here", _ORANGE):
        _line(axes, published, "torch", "SD 2.1, M2 Ultra, PyTorch, tutorial's", _GREY, "--")
    _line(axes, published, "diffuse", "SD 2.1, M2 Ultra, MLX, tutorial's", _GREY)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=_FAINT, linewidth=0.7)
    axes.set_xlabel("batch size", color=_INK, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="best")


def _line(axes: Axes, result: Result, who: str, label: str, color: str, style: str = "-") -> bool:
    """Draw rates by batch; return whether there were any."""
    found = [(batch, _rate(result, who, batch)) for batch in result.batches()]
    points = [(batch, rate) for batch, rate in found if rate is not None]
    if points:
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, style, color=color, label=label, marker="o", markersize=4)
    return bool(points)


def _rate(result: Result, who: str, batch: int) -> float | None:
    return result.median(f"{who}.step_pictures_per_sec@{batch}")


_PANELS = {"train": _training, "infer": _decoding, "diffuse": _diffusion}
