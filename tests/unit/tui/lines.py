"""Lines of the queue, made up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from daemon.client.answers import JobLine

NOW = datetime(2027, 1, 15, 9, 0, tzinfo=UTC)


def line(number: int = 1, **changes: Any) -> JobLine:
    """Return a queued job of one's own, changed."""
    made = {
        "id": number,
        "kind": "train",
        "name": f"job {number}",
        "user": "ana",
        "state": "queued",
        "reason": None,
        "priority": "normal",
        "position": None,
        "model": "smollm2",
        "created_at": "2027-01-15T08:00:00.000Z",
        "started_at": None,
        "ended_at": None,
        "progress": None,
        "peak_memory_bytes": None,
        "gpu_seconds": None,
        "revision": number,
        "mine": True,
        "readable": True,
        "error": None,
    }
    return cast("JobLine", made | changes)
