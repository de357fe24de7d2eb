"""How fast this machine reads its memory: as published for the chip, or measured on a CPU.

The rule this module protects: an unknown chip has no bandwidth, rather than a guessed one. Where a
name stands for parts of several speeds it is the fastest, so that the ceiling is not too low.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

# GB/s of unified memory by chip, from Apple's specification pages. M3 Max has 300 or 400, M4 Max
# 410 or 546, by the number of its GPU's cores.
_APPLE = {
    "M1": 68.25,
    "M1 Pro": 200,
    "M1 Max": 400,
    "M1 Ultra": 800,
    "M2": 100,
    "M2 Pro": 200,
    "M2 Max": 400,
    "M2 Ultra": 800,
    "M3": 100,
    "M3 Pro": 150,
    "M3 Max": 400,
    "M3 Ultra": 819,
    "M4": 120,
    "M4 Pro": 273,
    "M4 Max": 546,
}

# GB/s from NVIDIA's data sheets, by what the driver calls the card; the first that matches counts.
_NVIDIA = (
    (r"H200", 4800),
    (r"H100 NVL", 3900),
    (r"H100 PCIe", 2000),
    (r"H100.*HBM3", 3350),
    (r"A100.*PCIe.*80GB|A100 80GB PCIe", 1935),
    (r"A100.*80GB", 2039),
    (r"A100.*40GB", 1555),
    (r"L40S?$", 864),
    (r"L4$", 300),
    (r"A10$", 600),
    (r"RTX 5090$", 1792),
    (r"RTX 4090$", 1008),
    (r"RTX 3090$", 936),
)

# Another program at work makes single rounds slow, so there are rounds for a second at least.
_ROUNDS, _SECONDS = 7, 1.0
_CHUNKS_PER_PROCESSOR = 4


def published(device: str) -> float | None:
    """Return the bytes per second that the maker states for a device's name, None if unknown."""
    chip = device.removeprefix("Apple ").strip()
    if device.startswith("Apple ") and chip in _APPLE:
        return _APPLE[chip] * 1e9
    rates = (rate for name, rate in _NVIDIA if re.search(name, device, re.IGNORECASE))
    found = next(rates, None)
    return None if found is None else found * 1e9


def measured(size: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the bytes per second at which all processors together read ``size`` bytes once.

    The best of several rounds of dot products of an array with itself, which read each number once
    and do no more arithmetic than decoding does. ``size`` must be several times the caches'.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    processors = os.cpu_count() or 1
    array = np.ones(size // 4, dtype=np.float32)
    chunks = np.array_split(array, processors * _CHUNKS_PER_PROCESSOR)
    rounds: list[float] = []
    with ThreadPoolExecutor(processors) as pool:
        while len(rounds) < _ROUNDS or sum(rounds) < _SECONDS:
            begun = clock()
            list(pool.map(lambda chunk: float(np.dot(chunk, chunk)), chunks))
            rounds.append(clock() - begun)
    return float(array.nbytes / min(rounds))


def room_for_measuring(most: int) -> int:
    """Return how many bytes to read: ``most``, or an eighth of the memory where that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(most, memory // 8)
