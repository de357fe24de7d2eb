"""Which adapter ``job:N`` or ``job:N@STEP`` names, and who may use it.

The rule this module protects: an adapter is used only by its owner, by everyone once it is shared,
and by admins; and a reference means a folder that is really there. The right is asked once, when
the job is submitted; the worker asks again only for the folder.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon.errors import ModelError, NotFoundError
from daemon.ledger.jobs import get_job
from daemon.ledger.states import ENDED, AttemptState, JobState
from daemon.ledger.tables import Artifact, Attempt, Checkpoint, Job
from daemon.locate import Paths
from daemon.specs import parse_job_reference

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"


def check_adapter(
    session: Session, paths: Paths, reference: str, user_id: int, admin: bool
) -> bool:
    """Return whether the adapter is there now; False if its job may still make it.

    Raises:
        NotFoundError: there is no such job, or it is another user's and not shared.
        ModelError: the job makes no adapters, or has ended without this one.
    """
    number, step = parse_job_reference(reference)
    job = _readable_job(session, number, user_id, admin)
    if job.state not in ENDED and (step is None or _checkpoint(session, job, step) is None):
        return False
    find_adapter(session, paths, reference, user_id, admin)
    return True


def find_adapter(session: Session, paths: Paths, reference: str, user_id: int, admin: bool) -> Path:
    """Return the folder with the adapter's weights and configuration.

    Raises:
        NotFoundError: there is no such job, or it is another user's and not shared.
        ModelError: the job has no such adapter; the message says why.
    """
    number, step = parse_job_reference(reference)
    job = _readable_job(session, number, user_id, admin)
    folder = _final(session, paths, job) if step is None else _at_step(session, paths, job, step)
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise ModelError(
                f"the adapter of {reference} is incomplete: {name} is missing from {folder}",
                remedy=f"train it again: studioq repeat {number}",
            )
    return folder


def checkpoint_folder(paths: Paths, checkpoint: Checkpoint, attempt: Attempt) -> Path:
    """Return where a checkpoint of an attempt is."""
    return paths.attempt(checkpoint.job_id, attempt.number) / checkpoint.folder


def _readable_job(session: Session, number: int, user_id: int, admin: bool) -> Job:
    job = get_job(session, number)
    if not (admin or job.share or job.user_id == user_id):
        raise NotFoundError(
            f"job {number} belongs to another user, who has not shared it",
            remedy="its owner can submit it with --share",
        )
    if job.kind != "train":
        raise ModelError(
            f"job {number} is of kind {job.kind}; only a train job has an adapter",
            remedy="name a train job; studioq list --all --kind train shows them",
        )
    return job


def _final(session: Session, paths: Paths, job: Job) -> Path:
    """Return the folder of the adapter that the job ended with."""
    if job.state != JobState.SUCCEEDED:
        raise ModelError(
            f"job {job.id} {_why_unfinished(job.state)}, so it has no final adapter",
            remedy=_offer_checkpoints(session, job),
        )
    found = session.execute(
        select(Attempt.number, Artifact.name)
        .join(Artifact, Artifact.attempt_id == Attempt.id)
        .where(
            Attempt.job_id == job.id,
            Attempt.state == AttemptState.SUCCEEDED,
            Artifact.kind == "adapter",
            Artifact.name == WEIGHTS,
        )
        .order_by(Attempt.id.desc())
    ).first()
    if found is None:
        raise ModelError(f"job {job.id} succeeded without an adapter")
    number, _ = found
    return paths.attempt(job.id, number)


def _why_unfinished(state: str) -> str:
    words = {JobState.FAILED: "failed", JobState.CANCELLED: "was cancelled"}
    return words.get(JobState(state), f"is {state}")


def _at_step(session: Session, paths: Paths, job: Job, step: int) -> Path:
    """Return the folder of the newest checkpoint at ``step``."""
    found = _checkpoint(session, job, step)
    if found is None:
        raise ModelError(
            f"job {job.id} has no checkpoint at step {step}",
            remedy=_offer_checkpoints(session, job),
        )
    return checkpoint_folder(paths, *found)


def _checkpoint(session: Session, job: Job, step: int) -> tuple[Checkpoint, Attempt] | None:
    found = session.execute(
        select(Checkpoint, Attempt)
        .join(Attempt, Attempt.id == Checkpoint.attempt_id)
        .where(Checkpoint.job_id == job.id, Checkpoint.step == step)
        .order_by(Checkpoint.id.desc())
    ).first()
    return None if found is None else (found[0], found[1])


def _offer_checkpoints(session: Session, job: Job) -> str:
    """Return what can be used in the place of the adapter that is not there."""
    steps = sorted(set(session.scalars(select(Checkpoint.step).where(Checkpoint.job_id == job.id))))
    if not steps:
        return f"studioq show {job.id} says how it ended; it left no checkpoint"
    shown = ", ".join(f"job:{job.id}@{step}" for step in steps[-5:])
    return f"a checkpoint of it can be used: {shown}"
