"""Jobs that a submission is built on: adapters, checkpoints to resume from, and ``after``.

The rule it protects: a job never waits for what cannot come. An adapter that is there is used, one
whose job may still make it becomes a dependency, and any other is refused with what could be used
instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon.adapters import check_adapter
from daemon.errors import ModelError, NotFoundError, SpecRefusedError
from daemon.ledger.jobs import get_job
from daemon.ledger.states import ENDED, JobState
from daemon.ledger.tables import Checkpoint, Job
from daemon.locate import Paths
from daemon.specs import Spec, TrainSpec, parse_job_reference

# The largest number that SQLite can hold, and so the largest that a job can have.
MAX_NUMBER = 2**63 - 1


IsCopy = Callable[[str | None, str | None], bool]


def check(
    session: Session,
    paths: Paths,
    spec: Spec,
    user_id: int,
    *,
    admin: bool,
    is_copy: IsCopy = lambda _name, _of: False,
) -> list[int]:
    """Check every job that the spec cites; return those that must succeed first.

    ``is_copy`` says whether a model is a converted copy of another one.

    Raises:
        SpecRefusedError: names the field, the job, and what it has.
    """
    needed = []
    for field, reference in spec.job_references().items():
        try:
            number, step = _parse(reference)
            there = _is_there(session, paths, reference, user_id, admin=admin)
            job = get_job(session, number)
        except (ModelError, NotFoundError) as error:
            raise SpecRefusedError(
                f"{field} = {reference!r}: {error.message}", field=field, remedy=error.remedy
            ) from None
        model = getattr(spec, "model", None)
        if model != job.model and (field == "resume" or not is_copy(model, job.model)):
            raise _other_model(field, reference, job, model)
        if not there:
            _check_step(field, reference, job, step)
            needed.append(number)
    return needed


def _parse(reference: str) -> tuple[int, int | None]:
    number, step = parse_job_reference(reference)
    if number > MAX_NUMBER or (step or 0) > MAX_NUMBER:
        raise NotFoundError(f"there is no {reference}")
    return number, step


def _is_there(session: Session, paths: Paths, reference: str, user_id: int, *, admin: bool) -> bool:
    """Return whether the adapter can be used now; False if its job has yet to make it."""
    number, step = _parse(reference)
    if step is not None and _may_come(session, number, step):
        reference = f"job:{number}"
    return check_adapter(session, paths, reference, user_id, admin)


def _may_come(session: Session, number: int, step: int) -> bool:
    """Return whether the job has not ended and has no checkpoint at ``step`` yet."""
    job = get_job(session, number)
    if job.state in ENDED:
        return False
    found = session.scalar(
        select(Checkpoint.id).where(Checkpoint.job_id == number, Checkpoint.step == step).limit(1)
    )
    return found is None


def _other_model(field: str, reference: str, job: Job, model: str | None) -> SpecRefusedError:
    use = "convert" if field == "fuse" else "use --model"
    remedy = f"{use} {job.model}, or an adapter of {model}"
    if field != "resume":
        remedy += (
            f"; if {model} is the same network all the same: studioq fetch {job.id}, then "
            f"--{field} job-{job.id}"
        )
    return SpecRefusedError(
        f"{field} = {reference!r}: job {job.id} trains {job.model}, but this job's model is "
        f"{model}",
        field=field,
        remedy=remedy,
    )


def _check_step(field: str, reference: str, job: Job, step: int | None) -> None:
    """Refuse a step at which a running or waiting job will write no checkpoint."""
    if step is None:
        return
    spec = TrainSpec.model_construct(**job.spec)
    iters, every = spec.iters, spec.save_every
    if not 1 <= step <= iters:
        problem = f"ends at step {iters}"
    elif step % every and step != iters:
        problem = f"saves every {every} steps and at its end, step {iters}"
    else:
        return
    raise SpecRefusedError(
        f"{field} = {reference!r}: job {job.id} {problem}",
        field=field,
        remedy=f"{_near_steps(job.id, step, every, iters)}, or the whole job: job:{job.id}",
    )


def _near_steps(number: int, step: int, every: int, iters: int) -> str:
    """Name the checkpoints to come that are next to ``step``."""
    below = min(step, iters) // every * every
    steps = sorted({below or iters, min(below + every, iters)})
    return f"it will have {' and '.join(f'job:{number}@{near}' for near in steps)}"


def check_needed(session: Session, numbers: Iterable[int]) -> None:
    """Refuse ``after`` jobs that are not there or have ended without success.

    Raises:
        SpecRefusedError: names the job and its state.
    """
    for number in numbers:
        job = session.get(Job, number) if number <= MAX_NUMBER else None
        if job is None:
            raise SpecRefusedError(
                f"after: there is no job {number}",
                field="after",
                remedy="studioq list --all shows all jobs",
            )
        if job.state in ENDED and job.state != JobState.SUCCEEDED:
            raise SpecRefusedError(
                f"after: job {number} has already {_ended(job.state)}",
                field="after",
                remedy=f"studioq retry {number} first",
            )


def _ended(state: str) -> str:
    return {"cancelled": "been cancelled"}.get(state, state)
