"""Which measured names are drawn together, and how their numbers are written.

The rule this module protects: a name that nobody has thought of is shown like any other. Its unit
follows from its ending, and this list is for those that want a better title or a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tui.metrics.figures import figure

_GIGABYTE = 1e9


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One plot: the names in it, drawn from the first to the last.

    ``loss``: it may have a logarithmic axis, and its lowest value is its best. ``smooth``: it is
    noisy enough to be smoothed. ``extra``: it is shown only on request.
    """

    key: str
    title: str
    names: tuple[str, ...]
    loss: bool = False
    smooth: bool = True
    extra: bool = False

    def label(self, name: str) -> str:
        """Return how the curve of ``name`` is called within this plot; nothing if it is alone."""
        return "" if len(self.names) == 1 else _SHORT.get(name, title(name))


_KNOWN = (
    Chart(key="loss", title="Loss", names=("train_loss", "val_loss", "test_loss"), loss=True),
    Chart(key="tokens_per_sec", title="Tokens/s", names=("tokens_per_sec",)),
    Chart(key="learning_rate", title="Learning rate", names=("learning_rate",), smooth=False),
    Chart(
        key="memory",
        title="Memory, GB",
        names=("peak_memory_bytes", "active_memory_bytes", "cache_memory_bytes"),
        smooth=False,
    ),
    Chart(key="it_per_sec", title="Iterations/s", names=("it_per_sec",), extra=True),
    Chart(
        key="trained_tokens",
        title="Trained tokens",
        names=("trained_tokens",),
        smooth=False,
        extra=True,
    ),
    Chart(key="load_seconds", title="Load, s", names=("load_seconds",), smooth=False, extra=True),
)

_SHORT = {
    "train_loss": "train",
    "val_loss": "val",
    "test_loss": "test",
    "peak_memory_bytes": "peak",
    "active_memory_bytes": "active",
    "cache_memory_bytes": "cache",
}

_TITLES = {
    "train_loss": "Train loss",
    "val_loss": "Validation loss",
    "test_loss": "Test loss",
    "test_ppl": "Test perplexity",
    "tokens_per_sec": "Tokens/s",
    "it_per_sec": "Iterations/s",
    "peak_memory_bytes": "Peak memory, GB",
    "active_memory_bytes": "Active memory, GB",
    "cache_memory_bytes": "Cached memory, GB",
}

# Endings of names, and what stands for them in a title.
_UNITS = (
    ("_bytes", ", GB"),
    ("_seconds", ", s"),
    ("_per_second", "/s"),
    ("_per_sec", "/s"),
    ("_tps", " tokens/s"),
)


def title(name: str) -> str:
    """Return a name for people: ``Generation tokens/s`` for ``generation_tps``."""
    if name in _TITLES:
        return _TITLES[name]
    unit = next((pair for pair in _UNITS if name.endswith(pair[0])), ("", ""))
    words = name.removesuffix(unit[0]).replace("_", " ").strip()
    return (words[:1].upper() + words[1:] or name) + unit[1]


def divisor(name: str) -> float:
    """Return what a value is divided by before it is shown: bytes become gigabytes."""
    return _GIGABYTE if name.endswith("_bytes") else 1.0


def shown(name: str, value: float) -> str:
    """Write a value of ``name`` in its title's unit."""
    return figure(value / divisor(name))


def charts_of(names: Iterable[str], *, apart: bool = False) -> list[Chart]:
    """Return the plots for the names that were measured, the well-known ones first.

    ``apart``: each name has a plot of its own, as two jobs are compared.
    """
    found = list(dict.fromkeys(names))
    known = [_of_those(chart, found) for chart in _KNOWN if set(chart.names) & set(found)]
    placed = {name for chart in known for name in chart.names}
    unknown = [
        Chart(key=name, title=title(name), names=(name,), loss=name.endswith("_loss"))
        for name in sorted(set(found) - placed)
    ]
    together = sorted((*known, *unknown), key=lambda chart: chart.extra)
    return [part for chart in together for part in _parts(chart)] if apart else together


def _of_those(chart: Chart, names: Sequence[str]) -> Chart:
    """Return the plot with the names that there are; one that is left alone gives the title."""
    there = tuple(name for name in chart.names if name in names)
    alone = len(there) == 1 and len(chart.names) > 1
    return replace(chart, names=there, title=title(there[0]) if alone else chart.title)


def _parts(chart: Chart) -> list[Chart]:
    """Return a plot for each name; the second and third of what is not a loss only on request."""
    return [
        replace(
            chart,
            key=name,
            title=title(name),
            names=(name,),
            extra=chart.extra or (index > 0 and not chart.loss),
        )
        for index, name in enumerate(chart.names)
    ]
