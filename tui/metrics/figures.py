"""How numbers are written, and where an axis has its ticks.

The rule this module protects: an axis has no more labels than it has room for, and each label is
the tick's own value, also on a logarithmic axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A place on an axis, in the axis's own coordinate, and what is written there."""

    at: float
    label: str


def figure(value: float) -> str:
    """Write a measured number with about four digits: ``1.234``, ``812.5``, ``12345``, ``1e-5``."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1000:
        return f"{value:.4g}"
    if 1000 <= size < 999_999.5:
        return f"{value:.0f}"
    return _exponent(f"{value:.3g}")


def _exponent(text: str) -> str:
    """Write 1e-05 and 2e+06 as 1e-5 and 2e6."""
    mantissa, _, power = text.partition("e")
    return f"{mantissa}e{int(power)}" if power else mantissa


def count(value: float) -> str:
    """Write a step's number in few places: ``600``, ``12k``, ``1.5M``."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value / 1e3:.4g}k" if abs(value) >= 1e4 else f"{value:.6g}"


def linear_ticks(low: float, high: float, most: int) -> list[Tick]:
    """Return at most ``most`` ticks at multiples of 1, 2 or 5 times a power of ten."""
    values, interval = _multiples(low, high, most)
    labels = _labels(values, interval)
    return [Tick(at=at, label=label) for at, label in zip(values, labels, strict=True)]


def log_ticks(low: float, high: float, most: int) -> list[Tick]:
    """Return ticks between two decimal logarithms; labels are the numbers themselves."""
    if high - low >= 1:
        for digits in ((1, 2, 5), (1, 3), (1,)):
            found = _decades(low, high, digits)
            if len(found) <= most:
                return found
        found = _decades(low, high, (1,))
        return found[:: math.ceil(len(found) / max(1, most))]
    values = linear_ticks(10**low, 10**high, most)
    return [Tick(at=math.log10(tick.at), label=tick.label) for tick in values if tick.at > 0]


def _decades(low: float, high: float, digits: Sequence[int]) -> list[Tick]:
    powers = range(math.floor(low), math.ceil(high) + 1)
    values = [(power + math.log10(digit), digit, power) for power in powers for digit in digits]
    return [
        Tick(at=at, label=_exponent(f"{digit * 10.0**power:.4g}"))
        for at, digit, power in values
        if low <= at <= high
    ]


def _multiples(low: float, high: float, most: int) -> tuple[list[float], float]:
    span = high - low
    if not math.isfinite(span) or span <= 0 or most < 1:
        return [], 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20, 50):
        interval = factor * power
        first, last = math.ceil(low / interval - 1e-9), math.floor(high / interval + 1e-9)
        if last - first + 1 <= most:
            break
    return [index * interval for index in range(first, last + 1)], interval


def _labels(values: Sequence[float], interval: float) -> list[str]:
    """Write ticks with the decimals that tell them apart."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest >= 1e6 or 0 < largest < 1e-3:
        return [_exponent(f"{value:.3g}") for value in values]
    if largest >= 1e4:
        return [count(value) for value in values]
    decimals = max(0, -math.floor(math.log10(interval) + 1e-9))
    return [f"{value:.{decimals}f}" for value in values]
