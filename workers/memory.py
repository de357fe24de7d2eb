"""The device as the engine sees it: its name, its limits, and what is in use.

The rule this module protects: MLX's buffer cache is bounded, and wired limits are never raised;
they add up across processes, and raising them is linked to kernel panics.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from daemon import defaults
from workers.memory_env import BUDGET_VARIABLE, CACHE_VARIABLE


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryUse:
    """Bytes MLX holds now (active), held at most since a reset (peak), keeps unused (cache)."""

    active: int
    peak: int
    cache: int
    limit: int

    def to_dict(self) -> dict[str, int]:
        """Return the numbers as the daemon's status shows them."""
        return {
            "active": self.active,
            "peak": self.peak,
            "cache": self.cache,
            "limit": self.limit,
        }


def on_gpu() -> bool:
    """Say whether MLX computes on a GPU here."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)


def device_name() -> str:
    """Return the device's name as its driver gives it, for example ``Apple M2 Ultra``."""
    return str(_info().get("device_name") or ("gpu" if on_gpu() else "cpu"))


def device_kind() -> str:
    """Return ``metal``, ``cuda`` or ``cpu``."""
    if not on_gpu():
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def memory_limit() -> int:
    """Return the bytes that jobs should stay within.

    Metal's recommended working set, else the CUDA device's memory, else the machine's.
    """
    info = _info()
    for key in ("max_recommended_working_set_size", "total_memory", "memory_size"):
        if on_gpu() and int(info.get(key) or 0) > 0:
            return int(info[key])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_use() -> MemoryUse:
    """Return what MLX uses now."""
    return MemoryUse(
        active=mx.get_active_memory(),
        peak=mx.get_peak_memory(),
        cache=mx.get_cache_memory(),
        limit=memory_limit(),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the home's configuration allows: a share of the device's memory, and bytes."""

    model_budget: float = defaults.MODEL_BUDGET
    buffer_cache_bytes: int = defaults.BUFFER_CACHE_LIMIT

    @classmethod
    def named_by(cls, environment: Mapping[str, str]) -> Limits:
        """Return the limits that the worker has put into the engine's environment."""
        return cls(
            model_budget=float(environment.get(BUDGET_VARIABLE, defaults.MODEL_BUDGET)),
            buffer_cache_bytes=int(environment.get(CACHE_VARIABLE, defaults.BUFFER_CACHE_LIMIT)),
        )


def configure(limits: Limits | None = None) -> int:
    """Bound MLX's buffer cache and memory; return the budget for loaded models, bytes."""
    limits, limit = limits or Limits(), memory_limit()
    mx.set_cache_limit(min(limits.buffer_cache_bytes, limit // 4))
    mx.set_memory_limit(limit)
    return int(limit * limits.model_budget)


def free_unused() -> int:
    """Collect garbage, give MLX's cached buffers back, and return the bytes still active."""
    gc.collect()
    mx.clear_cache()
    return int(mx.get_active_memory())


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave MLX's global random state as it was, whatever random numbers the block draws.

    Building a network draws its initial weights, and two attempts may share this process. MLX
    ignores an assignment to ``mx.random.state``; seeding with the key's two words restores it.
    """
    state: Any = mx.random.state
    high, low = (int(word) for word in state[0].tolist())
    try:
        yield
    finally:
        mx.random.seed((high << 32) | low)


def _info() -> dict[str, Any]:
    return dict(mx.device_info())
