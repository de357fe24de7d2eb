"""Whether a model fits into the memory of this machine.

The rule this module protects: what a model needs is counted as the engine will hold it, from the
headers of its files, and compared with what the engine says it may use. It is the weights alone:
what a job adds depends on its batch and its texts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from daemon.model_facts import ModelFacts
from daemon.models import IMAGE_FORMATS

# MLX's builds that compute on NVIDIA GPUs, and the driver's sign that there is one.
_CUDA_BUILDS = ("mlx-cuda-12", "mlx-cuda-13")
_DRIVER = Path("/proc/driver/nvidia/version")

_FLOAT32, _FLOAT16 = 4, 2  # bytes


@dataclass(frozen=True, kw_only=True)
class Memory:
    """``limit``: bytes for jobs, None: not known; ``source``: ``engine`` or ``machine``.

    ``float32``: the engine computes on the CPU, where every weight takes four bytes. Models above
    ``share`` of the limit are ``tight``.
    """

    limit: int | None
    source: str
    float32: bool
    share: float

    def needed(self, format_: str, facts: ModelFacts) -> int | None:
        """Return the bytes that a model's weights take when loaded, None where unknown."""
        if facts.count is None:
            return None
        if self.float32:
            return _FLOAT32 * facts.count.parameters
        if format_ in IMAGE_FORMATS:
            return _FLOAT16 * facts.count.parameters
        return facts.count.stored_bytes

    def fits(self, needed: int | None) -> str | None:
        """Return ``yes``, ``tight`` or ``no``; None where it is not known."""
        if needed is None or self.limit is None:
            return None
        if needed > self.limit:
            return "no"
        return "tight" if needed > self.share * self.limit else "yes"


def find_memory(engine: Mapping[str, Any], *, share: float) -> Memory:
    """Return the memory for models, as the status of the engine says or as the machine has it."""
    limit = (engine.get("memory") or {}).get("limit")
    float32 = on_cpu()
    if limit is not None:
        return Memory(limit=int(limit), source="engine", float32=float32, share=share)
    # A card's own memory is known to the engine alone.
    own = None if _has_card() else machine_memory()
    return Memory(limit=own, source="machine", float32=float32, share=share)


def machine_memory() -> int:
    """Return the machine's memory, bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def on_cpu() -> bool:
    """Return whether MLX will compute on the CPU here: on macOS and with CUDA it does not."""
    return sys.platform != "darwin" and not _has_card()


@cache
def _has_card() -> bool:
    return _DRIVER.exists() and any(_is_installed(build) for build in _CUDA_BUILDS)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
