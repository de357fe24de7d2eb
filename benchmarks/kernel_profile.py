"""Which kernels a step spends its time in, seen through PyTorch's profiler.

The rule this module protects: a profile is a help, never a condition. CUPTI sees every kernel of
the process, MLX's too, if PyTorch was imported before MLX; where it sees none, that is what is
reported.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

_DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
_SHOWN = 40
_WIDTH = 110

# CUDA graphs that were made before CUPTI came are not seen kernel by kernel (pytorch/kineto).
_KEEP_CUPTI = {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """All calls of one kernel."""

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What the device did in ``steps`` steps.

    ``busy``: seconds in which at least one kernel ran; ``wall``: of the same steps, watched;
    ``unwatched``: of as many steps without the profiler.
    """

    title: str
    steps: int
    kernels: tuple[Kernel, ...]
    busy: float
    wall: float
    unwatched: float

    def summary(self) -> str:
        """Return the sums of a step as two lines, Markdown."""
        total = sum(kernel.seconds for kernel in self.kernels)
        calls = sum(kernel.calls for kernel in self.kernels)
        return (
            f"## {self.title}\n"
            f"Per step, of {self.steps} steps: kernels {self._ms(total)} in "
            f"{calls / self.steps:.0f} calls, device busy {self._ms(self.busy)}, wall "
            f"{self._ms(self.wall)} while watched, {self._ms(self.unwatched)} unwatched.\n"
        )

    def text(self) -> str:
        """Return the summary and the table of kernels, most time first, as Markdown."""
        if not self.kernels:
            return f"{self.summary()}no kernel was seen\n"
        total = sum(kernel.seconds for kernel in self.kernels)
        rows = [self._row(kernel, total) for kernel in self.kernels[:_SHOWN]]
        rest = len(self.kernels) - len(rows)
        more = [f"\nand {rest} more"] if rest > 0 else []
        head = ["| ms/step | share | calls/step | µs/call | kernel |", "|--:|--:|--:|--:|---|"]
        return "\n".join([self.summary(), *head, *rows, *more, ""])

    def _ms(self, seconds: float) -> str:
        return f"{1e3 * seconds / self.steps:.2f} ms"

    def _row(self, kernel: Kernel, total: float) -> str:
        name = kernel.name if len(kernel.name) <= _WIDTH else kernel.name[: _WIDTH - 1] + "…"
        return (
            f"| {1e3 * kernel.seconds / self.steps:.3f} | {100 * kernel.seconds / total:.1f} % "
            f"| {kernel.calls / self.steps:.1f} | {1e6 * kernel.seconds / kernel.calls:.1f} "
            f"| `{name}` |"
        )


def missing_reason() -> str | None:
    """Import PyTorch; return why it cannot profile a CUDA device here, None if it can.

    To be called before MLX is imported.
    """
    for name, value in _KEEP_CUPTI.items():
        os.environ.setdefault(name, value)
    try:
        torch = import_module("torch")
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        return f"torch cannot be imported ({type(error).__name__}: {error})"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    torch.zeros(1, device="cuda")
    return None


def watch(title: str, action: Callable[[], None], steps: int) -> Profile:
    """Profile ``action``, which does ``steps`` steps and returns when the device is done.

    It is called four times: once watched, so that what is set up once is set up; twice without the
    profiler, of which the second time counts; and watched again.
    """
    _traced(action)
    action()
    begun = time.perf_counter()
    action()
    unwatched = time.perf_counter() - begun
    trace, wall = _traced(action)
    events = device_events(trace)
    return Profile(
        title=title,
        steps=steps,
        kernels=kernels(events),
        busy=busy_seconds(events),
        wall=wall,
        unwatched=unwatched,
    )


def _traced(action: Callable[[], None]) -> tuple[Mapping[str, Any], float]:
    """Return the profiler's Chrome trace of ``action``, and its seconds."""
    profiler = import_module("torch.profiler")
    activities = [profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]
    seen = profiler.profile(activities=activities)
    seen.start()
    begun = time.perf_counter()
    action()
    wall = time.perf_counter() - begun
    seen.stop()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        return json.loads(path.read_bytes()), wall


def device_events(trace: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the events of a Chrome trace in which the device worked; times are microseconds."""
    return [event for event in trace["traceEvents"] if event.get("cat") in _DEVICE_WORK]


def kernels(events: Iterable[Mapping[str, Any]]) -> tuple[Kernel, ...]:
    """Return the kernels by name, most time first."""
    found: dict[str, list[float]] = {}
    for event in events:
        found.setdefault(str(event["name"]), []).append(float(event["dur"]) / 1e6)
    rows = (
        Kernel(name=name, calls=len(times), seconds=sum(times)) for name, times in found.items()
    )
    return tuple(sorted(rows, key=lambda kernel: (-kernel.seconds, kernel.name)))


def busy_seconds(events: Iterable[Mapping[str, Any]]) -> float:
    """Return the time in which at least one event was under way, however many were."""
    spans = sorted((float(event["ts"]), float(event["dur"])) for event in events)
    busy, until = 0.0, float("-inf")
    for start, length in spans:
        end = start + length
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy / 1e6


def write_profiles(path: Path, profiles: Sequence[Profile]) -> None:
    """Write all tables into one file."""
    path.write_text("\n".join(profile.text() for profile in profiles), encoding="utf-8")
