"""Ledger rows as the JSON that the API answers (docs/api.md).

The rule it protects: what a person may not read is left out here, where the answer is made. Of
somebody else's job that is not shared everyone sees the queue's line: neither the error nor a
reason that comes from running it, for both can quote the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from daemon import defaults
from daemon.access import Person
from daemon.ledger.states import JobState
from daemon.ledger.tables import Attempt, JobEvent, Metric

Json = dict[str, Any]

_LEVELS = {number: name for name, number in defaults.PRIORITIES.items()}


def iso(seconds: float | None) -> str | None:
    """Return the time as ISO 8601 UTC with milliseconds: ``2026-11-23T01:02:03.456Z``."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def level(priority: int) -> str:
    """Return the name of a stored priority."""
    return _LEVELS.get(priority, str(priority))


def progress(row: Any) -> Json:
    """Return how far a job is."""
    return {
        "done": row.progress_done,
        "total": row.progress_total,
        "eta_seconds": row.eta_seconds,
    }


def job_line(
    row: Any, person: Person, position: int | None, *, engine_waits: str | None = None
) -> Json:
    """Return one line of the queue; ``row`` has the columns of ``queries.LINE``.

    ``engine_waits``: what keeps the engine from starting any queued job.
    """
    readable = person.may_read(row.owner_uid, shared=row.share)
    reason = row.reason if readable or row.started_at is None else None
    return {
        "id": row.id,
        "kind": row.kind,
        "name": row.name,
        "user": row.user,
        "state": row.state,
        "reason": engine_waits or reason if row.state == JobState.QUEUED else reason,
        "priority": level(row.priority),
        "position": position,
        "model": row.model,
        "to": row.to,
        "created_at": iso(row.created_at),
        "started_at": iso(row.started_at),
        "attempt_started_at": iso(row.attempt_started_at),
        "ended_at": iso(row.ended_at),
        "progress": progress(row),
        "peak_memory_bytes": row.peak_memory_bytes,
        "gpu_seconds": row.gpu_seconds,
        "revision": row.revision,
        "mine": person.owns(row.owner_uid),
        "readable": readable,
        "error": _short_error(row.error) if readable else None,
    }


def _short_error(error: Mapping[str, Any] | None) -> Json | None:
    if error is None:
        return None
    return {"code": error.get("code"), "message": error.get("message")}


def attempt(row: Attempt) -> Json:
    """Return one attempt as ``show`` gives it."""
    return {
        "number": row.number,
        "state": row.state,
        "started_at": iso(row.started_at),
        "ended_at": iso(row.ended_at),
        "gpu_seconds": row.gpu_seconds,
        "peak_memory_bytes": row.peak_memory_bytes,
        "reason": row.reason,
        "resumed_step": row.resumed_step,
        "worker": row.worker,
        "device": row.device,
        "facts": row.facts,
    }


def artifact(row: Any) -> Json:
    """Return one artifact; ``row`` has the columns of ``details.ARTIFACT``."""
    return {
        "name": row.name,
        "kind": row.kind,
        "bytes": row.bytes,
        "sha256": row.sha256,
        "step": row.step,
        "attempt": row.attempt,
    }


def metric(row: Metric, number: int) -> Json:
    """Return one measured number of attempt ``number``."""
    return {
        "id": row.id,
        "attempt": number,
        "step": row.step,
        "name": row.name,
        "value": row.value,
        "at": iso(row.at),
    }


def event(row: JobEvent) -> Json:
    """Return one entry of a job's history."""
    return {
        "id": row.id,
        "at": iso(row.at),
        "action": row.action,
        "actor": row.actor,
        "detail": row.detail,
    }
