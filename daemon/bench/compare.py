"""A run beside an earlier one, or beside the tutorial's machines: the change of each figure.

The rule this module protects: two numbers are never put beside each other without saying what else
differs between them: machine, model, versions, settings. A change is called one only where both
sides have a spread that it exceeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daemon.bench import tutorial
from daemon.bench.layout import fold, table
from daemon.bench.record import Figure, Machine, Record, Result, read_record
from daemon.bench.tables import number
from daemon.cli.table import Column
from daemon.cli.units import size

TUTORIAL = "tutorial"

_COLUMNS = (
    Column(title="figure", least=16),
    Column(title="before", right=True),
    Column(title="now", right=True),
    Column(title="change", right=True),
    Column(title=""),
)

_BYTES = "B"
_UNJUDGED = "no verdict"
_WHY_UNJUDGED = "no verdict: one run alone has no spread, so nothing tells a change from chance"


def earlier(named: str) -> dict[str, Record]:
    """Return what to compare with, by what to call it: a saved run, or the tutorial's machines.

    Raises:
        UsageError: the file is no saved run.
    """
    if named == TUTORIAL:
        return {f"the tutorial's {each.machine.device}": each for each in tutorial.MACHINES}
    record = read_record(Path(named))
    return {f"{named} of {record.date}": record}


def page(now: Record, before: Record, called: str, width: int | None) -> Iterator[str]:
    """Yield the lines of a comparison."""
    rows = [_row(*pair) for pair in _pairs(now, before)]
    yield from fold(f"Compared with {called}", width)
    if not rows:
        yield "no figure is in both"
        return
    yield from table(_COLUMNS, rows, width)
    if any(row[-1] == _UNJUDGED for row in rows):
        yield from fold(_WHY_UNJUDGED, width)
    for difference in differences(now, before):
        yield from fold(f"differs: {difference}", width)


def _pairs(now: Record, before: Record) -> Iterator[tuple[Figure, Figure]]:
    known = {figure.key: figure for _, figure in before.figures()}
    for _, figure in now.figures():
        if figure.key in known:
            yield known[figure.key], figure


def change(before: Figure, now: Figure) -> float | None:
    """Return the change of the median as a share of the earlier one, None if that is 0."""
    return now.median / before.median - 1 if before.median else None


def _row(before: Figure, now: Figure) -> list[str]:
    share = change(before, now)
    values = [_median(before), _median(now), "-" if share is None else f"{share:+.1%}"]
    return [now.key, *values, _judgement(before, now, share)]


def _median(figure: Figure) -> str:
    """Write a median; the figure's key says its unit, but for bytes."""
    return size(figure.median) if figure.unit == _BYTES else number(figure)


def _judgement(before: Figure, now: Figure, share: float | None) -> str:
    """Return whether the change is one, for better or worse; repeats that overlap show none."""
    if share is None or share == 0:
        return ""
    if len(before.values) < 2 or len(now.values) < 2:
        return _UNJUDGED
    if min(now.values) <= max(before.values) and min(before.values) <= max(now.values):
        return "within the spread"
    return "better" if (share < 0) is now.lower_is_better else "worse"


def differences(now: Record, before: Record) -> list[str]:
    """Return what differs besides the numbers: [then] → [now], one line each."""
    found = list(_of_machines(before.machine, now.machine))
    if now.quick != before.quick:
        found.append(f"--quick: {_word(before.quick)} → {_word(now.quick)}")
    for result in now.results:
        other = before.result(result.table)
        if other is not None:
            found += _of_results(other, result)
    return found


def _of_machines(before: Machine, now: Machine) -> Iterator[str]:
    for name in ("device", "platform", "processors"):
        then, here = getattr(before, name), getattr(now, name)
        if then and then != here:
            yield f"{'machine' if name == 'device' else name}: {then} → {here}"
    yield from _changed("", before.versions, now.versions)


def _of_results(before: Result, now: Result) -> Iterator[str]:
    if before.model != now.model:
        yield f"{now.table}, model: {before.model} → {now.model}"
    elif before.facts.get("model_fingerprint") != now.facts.get("model_fingerprint"):
        yield f"{now.table}, model: the weights of {now.model} are others"
    yield from _changed(f"{now.table}, ", before.settings, now.settings)


def _changed(prefix: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *now} if before else ()):
        if before.get(name) != now.get(name):
            yield f"{prefix}{name}: {before.get(name, 'none')} → {now.get(name, 'none')}"


def _word(value: bool) -> str:
    return "yes" if value else "no"
