from __future__ import annotations

from typing import Any

import pytest

from benchmarks.kernel_profile import (
    Profile,
    busy_seconds,
    device_events,
    kernels,
    write_profiles,
)


def event(name: str, start: float, duration: float, kind: str = "kernel") -> dict[str, Any]:
    return {"cat": kind, "name": name, "ts": start, "dur": duration}


# Two kernels that overlap, a copy some time after them, and what the host did.
TRACE = {
    "traceEvents": [
        event("gemm", 0.0, 104.0),
        event("norm", 60.0, 60.0),
        event("gemm", 60.0, 20.0),
        event("copy", 200.0, 34.0, "gpu_memcpy"),
        event("cudaLaunchKernel", 0.0, 500.0, "cuda_runtime"),
        {"ph": "M", "name": "process_name"},
    ]
}


def test_kernels_are_added_up_by_name() -> None:
    found = kernels(device_events(TRACE))
    assert [(kernel.name, kernel.calls) for kernel in found] == [
        ("gemm", 2),
        ("norm", 1),
        ("copy", 1),
    ]
    assert [kernel.seconds for kernel in found] == pytest.approx([124e-6, 60e-6, 34e-6])


def test_a_device_is_busy_once_however_many_kernels_run() -> None:
    assert busy_seconds(device_events(TRACE)) == pytest.approx(154e-6)
    assert busy_seconds([]) == 0.0


def test_the_report_counts_by_step(tmp_path: Any) -> None:
    profile = Profile(
        title="studioq, batch 1",
        steps=2,
        kernels=kernels(device_events(TRACE)),
        busy=154e-6,
        wall=0.002,
        unwatched=0.001,
    )
    path = tmp_path / "kernels.md"
    write_profiles(path, [profile])
    text = path.read_text()
    assert "kernels 0.11 ms in 2 calls" in text
    assert "device busy 0.08 ms" in text
    assert "| 0.062 | 56.9 % | 1.0 | 62.0 | `gemm` |" in text


def test_a_profile_that_saw_nothing_says_so() -> None:
    profile = Profile(title="x", steps=1, kernels=(), busy=0.0, wall=0.1, unwatched=0.1)
    assert "no kernel was seen" in profile.text()
