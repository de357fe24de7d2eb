"""How durations, sizes and times are written for people.

The rule it protects: what a person reads is local and rounded, what a program reads (``--json``) is
exactly what the daemon said; so nothing here is ever parsed again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def seconds_between(start: str | None, end: str | None, now: datetime) -> float | None:
    """Return the seconds from one ISO time to another, or to ``now``; None before the start."""
    if start is None:
        return None
    last = now if end is None else parse(end)
    return max(0.0, (last - parse(start)).total_seconds())


def running_seconds(job: Any, now: datetime) -> float | None:
    """Return how long a job has run, all attempts together; None before the first one.

    Time between two attempts, in the queue or before a retry, does not count.
    """
    spent = float(job.get("gpu_seconds") or 0.0)
    if job["state"] == "running":
        since = job.get("attempt_started_at") or job["started_at"]
        return spent + (seconds_between(since, None, now) or 0.0)
    if spent or job["ended_at"] is None:
        return None if job["started_at"] is None else spent
    return seconds_between(job["started_at"], job["ended_at"], now)


def parse(text: str) -> datetime:
    """Return an ISO 8601 time; without a zone it is UTC."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def duration(seconds: float | None) -> str:
    """Write seconds with at most two units: ``52s``, ``18m``, ``2h05m``, ``3d04h``."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 48:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"


def size(count: float | None) -> str:
    """Write bytes in decimal units, as disks are sold: ``512 B``, ``3.2 MB``, ``14 GB``."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:.3g} GB"


def count(number: float | None) -> str:
    """Write a large number with three digits: ``812``, ``135M``, ``7.24B``."""
    if number is None:
        return ""
    for unit in ("", "k", "M", "B"):
        if number < 999.5 or unit == "B":
            return f"{number:.3g}{unit}" if number < 999.5 else f"{number:.0f}{unit}"
        number /= 1000
    raise AssertionError("the last unit is for all that is larger")


def local_time(text: str | None) -> str:
    """Write an ISO time as local ``2026-11-23 02:03:04``."""
    return "" if text is None else parse(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def number(value: float) -> str:
    """Write a measured number with four digits of precision."""
    return f"{value:.4g}"
