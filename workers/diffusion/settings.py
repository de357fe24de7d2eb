"""Reading a network's JSON configuration key by key.

The rule this module protects: a key that nobody took, and that is switched on, is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from daemon.errors import ModelError

Counts = tuple[int, ...]

# The largest number that is believed: widths are far below it, and nothing is built that long.
_MOST = 1 << 20


class Settings:
    """One JSON object whose keys are taken one by one; what nobody took must be harmless."""

    def __init__(self, source: str, data: Mapping[str, Any]) -> None:
        self._source = source
        self._data = data
        self._taken: set[str] = set()

    def refused(self, key: str, allowed: str) -> ModelError:
        """Return the error for a value that cannot be followed."""
        shown = repr(self._data.get(key))
        shown = shown if len(shown) <= 80 else shown[:79] + "…"
        return ModelError(
            f"{self._source} has {key} = {shown}; what can be used is {allowed}",
            remedy="use a model of Stable Diffusion 1.x, 2.x or SDXL in diffusers' layout",
        )

    def is_null(self, key: str) -> bool:
        """Say whether the key is there and null, which here is not the default."""
        return key in self._data and self._data[key] is None

    def take(self, key: str, default: Any) -> Any:
        """Return the value of ``key``; null means the default."""
        self._taken.add(key)
        value = self._data.get(key)
        return default if value is None else value

    def whole(
        self, key: str, default: int | None = None, *, least: int = 1, most: int = _MOST
    ) -> int:
        """Return a whole number that is at least ``least`` and at most ``most``."""
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.refused(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float) -> float:
        """Return a positive number."""
        value = self.real(key, default)
        if not value > 0:
            raise self.refused(key, "a positive number")
        return value

    def real(self, key: str, default: float) -> float:
        """Return a finite number."""
        value = self.take(key, default)
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if not plain or not math.isfinite(value):
            raise self.refused(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return a truth value."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.refused(key, "true or false")
        return value

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """Return one of the allowed words."""
        value = self.take(key, default)
        if value not in allowed:
            raise self.refused(key, " or ".join(allowed))
        return str(value)

    def words(
        self, key: str, default: tuple[str, ...], allowed: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Return a list of allowed words."""
        value = self.take(key, default)
        listed = isinstance(value, list | tuple) and len(value) > 0
        if not listed or any(item not in allowed for item in value):
            raise self.refused(key, f"a list of {' and '.join(allowed)}")
        return tuple(value)

    def counts(self, key: str, default: int | Counts, blocks: int, *, most: int = _MOST) -> Counts:
        """Return one whole number for each of ``blocks`` blocks; a single one holds for all."""
        value = self.take(key, default)
        values = [value] * blocks if isinstance(value, int) else value
        if not isinstance(values, list | tuple) or len(values) != blocks:
            raise self.refused(key, f"a whole number, or a list of {blocks}")
        if not all(is_whole(item, most) for item in values):
            raise self.refused(key, f"whole numbers from 1 to {most}")
        return tuple(values)

    def flags(self, key: str, blocks: int) -> tuple[bool, ...]:
        """Return one truth value for each block; a single one holds for all."""
        value = self.take(key, False)
        values = [value] * blocks if isinstance(value, bool) else value
        if not isinstance(values, list | tuple) or len(values) != blocks:
            raise self.refused(key, f"true, false, or a list of {blocks}")
        if not all(isinstance(item, bool) for item in values):
            raise self.refused(key, "true and false")
        return tuple(values)

    def fixed(self, **wanted: Any) -> None:
        """Refuse each of these keys whose value is another than the one that is followed."""
        for key, value in wanted.items():
            if self.take(key, value) != value:
                raise self.refused(key, repr(value))

    def ignored(self, *keys: str) -> None:
        """Take keys that say nothing about the network's results."""
        self._taken.update(keys)

    def finish(self) -> None:
        """Refuse keys that nobody knows, unless they are switched off."""
        for key in self._data.keys() - self._taken:
            if not key.startswith("_") and self._data[key] not in (None, False):
                raise self.refused(key, "nothing: this setting is unknown here")


def is_whole(value: Any, most: int) -> bool:
    """Say whether ``value`` is a whole number from 1 to ``most``, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
