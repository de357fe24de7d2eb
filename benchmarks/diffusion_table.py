"""The table that ``benchmarks/diffusion.py`` prints, and what the tutorial published.

The rule this module protects: a number is printed with what it was measured in: its spread, its
warm-up, its memory. What failed stands below the table with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.rates import Cell
from daemon.bench.tutorial import PICTURES

TUTORIAL_SAYS = (
    "2023 M2 Ultra: the MLX tutorial's own table, not measured here: Stable Diffusion 2.1, "
    "512x512, guidance, float32, 50 steps"
)
BATCHES = tuple(PICTURES)

# Stands where there is no number.
NOTHING = "-"

Row = Sequence[Cell]
Column = tuple[str, Callable[[Row], str]]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What rates are compared with: operations of one step-image, and of a second of products."""

    flops_per_step_image: float
    ceiling: float

    def flops(self, cell: Cell) -> float | None:
        """Return the operations per second."""
        return None if cell.rate is None else cell.rate * self.flops_per_step_image


def table_columns(scale: Scale, rivals: Sequence[str]) -> list[Column]:
    """Return the columns for rows whose first cell is studioq's and the others the ``rivals``'."""
    own: list[Column] = [
        ("batch", lambda row: str(row[0].batch)),
        ("step-images/s", lambda row: number(row[0].rate)),
        ("±", lambda row: percent(row[0].spread)),
        ("TFLOP/s", lambda row: tera(scale.flops(row[0]))),
        ("of products", lambda row: percent(_share(scale, row[0]))),
        ("peak GiB", lambda row: gibibytes(row[0].peak_bytes)),
        ("warm-up s", lambda row: number(row[0].warm_up_seconds)),
    ]
    others = [column for index, name in enumerate(rivals, 1) for column in _rival(name, index)]
    return [*own, *others, *_tutorial()]


def _rival(name: str, index: int) -> Iterator[Column]:
    yield name, lambda row: number(row[index].rate)
    yield "±", lambda row: percent(row[index].spread)
    yield "GiB", lambda row: gibibytes(row[index].peak_bytes)
    yield "warm-up s", lambda row: number(row[index].warm_up_seconds)
    yield "studioq is", lambda row: times(row[0].rate, row[index].rate)


def _tutorial() -> Iterator[Column]:
    for place, name in enumerate(("PyTorch", "MLX")):
        yield f"2023 M2 Ultra, {name}", partial(_published_cell, place)


def header(columns: Sequence[Column]) -> str:
    """Return the table's first two lines, Markdown."""
    titles = [title for title, _ in columns]
    return f"{_joined(titles)}\n|{'|'.join('-' * (len(title) + 1) + ':' for title in titles)}|"


def line(columns: Sequence[Column], row: Row) -> str:
    """Return one row, as wide as the titles."""
    return _joined([text(row).rjust(len(title)) for title, text in columns])


def failures(row: Row) -> list[str]:
    """Return why contenders have no number in this row."""
    return [f"batch {cell.batch}, {cell.name}: {cell.failure}" for cell in row if cell.failure]


def _joined(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _share(scale: Scale, cell: Cell) -> float | None:
    flops = scale.flops(cell)
    return None if flops is None else flops / scale.ceiling


def _published_cell(place: int, row: Row) -> str:
    return published(row[0].batch, place)


def published(batch: int, place: int) -> str:
    """Return the tutorial's number, a dash for a batch that it has not."""
    return f"{PICTURES[batch][place]:.2f}" if batch in PICTURES else NOTHING


def number(value: float | None) -> str:
    """Return three digits that count."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def percent(part: float | None) -> str:
    """Return a share of one in percent."""
    return NOTHING if part is None else f"{100 * part:.1f} %"


def tera(value: float | None) -> str:
    """Return 10¹² of something."""
    return number(None if value is None else value / 1e12)


def gibibytes(count: int | None) -> str:
    """Return a number of bytes in GiB."""
    return NOTHING if count is None else f"{count / 2**30:.2f}"


def times(rate: float | None, other: float | None) -> str:
    """Return how many times ``other`` the rate is."""
    return NOTHING if rate is None or not other else f"{rate / other:.2f} times"
