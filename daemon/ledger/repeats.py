"""What a repeated job was made with, beside what the first one was made with.

The rule this module protects: it is told from the facts that the attempts recorded, and what was
not recorded of both is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon.ledger.tables import Attempt, Job

# Facts that may change the outputs of a spec: files by their hashes, the device, the packages.
_TELLING = (
    "model_fingerprint",
    "model_sha256",
    "adapter_sha256",
    "adapter_config_sha256",
    "device",
    "python",
)
_VERSIONS = "version_"


def changes(session: Session, job: Job) -> dict[str, list[Any]] | None:
    """Return what has changed since the job that ``job`` repeats: [then, now] by the fact's name.

    None: it repeats none, or one of the two has not run so far that facts were recorded.
    """
    if job.repeats_id is None:
        return None
    then, now = _facts(session, job.repeats_id), _facts(session, job.id)
    if not then or not now:
        return None
    both = [name for name in then if name in now and _is_telling(name)]
    return {name: [then[name], now[name]] for name in both if then[name] != now[name]}


def _is_telling(name: str) -> bool:
    return name in _TELLING or name.startswith(_VERSIONS)


def _facts(session: Session, number: int) -> Mapping[str, Any]:
    """Return the facts of the job's last attempt that recorded any."""
    recorded = session.scalars(
        select(Attempt.facts).where(Attempt.job_id == number).order_by(Attempt.number.desc())
    )
    return next((facts for facts in recorded if facts), {})
