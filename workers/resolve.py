"""From a claimed job to the message that starts it: every name becomes a path that is there.

The rule this module protects: the engine gets paths and never looks for anything. What is missing
is found out here, so that such a job fails with a clear message and without the GPU.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon import quantised
from daemon.adapters import CONFIG, WEIGHTS, checkpoint_folder, find_adapter
from daemon.errors import JobError, ModelError
from daemon.ledger.attempts import Claim
from daemon.ledger.tables import Attempt, Checkpoint, User
from daemon.ledger.uploads import inputs_of
from daemon.locate import Paths
from daemon.model_kinds import check_model
from daemon.models import ModelRoots
from daemon.specs import ConvertSpec, Spec, load_spec
from daemon.targets import target_folder
from workers.checkpoints import is_whole
from workers.failures import disk_errors
from workers.protocol import Start

log = logging.getLogger(__name__)

# Where a spec may cite an adapter's files, and what each is called in the adapter's folder.
_ADAPTER_PLACES = {
    f"{field}.{part}": name
    for field in ("adapter", "fuse")
    for part, name in (("weights", WEIGHTS), ("config", CONFIG))
}


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What to send, and the step of the checkpoint that the attempt goes on from."""

    start: Start
    step: int | None


def resolve(session: Session, claim: Claim, *, paths: Paths, roots: ModelRoots) -> Resolved:
    """Find everything that the job names, and make the attempt's empty folder.

    Raises:
        JobError: an uploaded file, the model or the adapter is not there, the model is of another
            kind than the job or forbids what the job is to do, or the disk is full.
        NotFoundError: the job whose adapter is wanted does not exist.
    """
    spec = load_spec(claim.kind, claim.spec)
    inputs = _inputs(session, claim, paths) if spec.input_files() else {}
    checkpoint, step = _last_checkpoint(session, claim, paths)
    model = _model(claim, roots, spec)
    adapter = _adapter(session, claim, paths, inputs, spec)
    start = Start(
        attempt=claim.fence,
        job=claim.job_id,
        number=claim.number,
        kind=claim.kind,
        spec=claim.spec,
        folder=str(_fresh_folder(paths.attempt(claim.job_id, claim.number))),
        inputs={place: str(path) for place, path in inputs.items()},
        model=_text(model),
        adapter=_text(adapter),
        checkpoint=_text(checkpoint),
        target=_text(_target(session, claim, roots, spec)),
    )
    return Resolved(start=start, step=step)


def _inputs(session: Session, claim: Claim, paths: Paths) -> dict[str, Path]:
    found = {}
    for place, (name, sha256) in inputs_of(session, claim.job_id).items():
        path = paths.blob(sha256)
        if not path.is_file():
            raise JobError(
                f"the uploaded file {name} ({place}) is not in the store any more",
                field=place,
                remedy="submit the job again, which uploads it again",
            )
        found[place] = path
    return found


def _model(claim: Claim, roots: ModelRoots, spec: Spec) -> Path | None:
    if claim.model is None:
        return None
    path = roots.find(claim.model)
    if path is None:
        raise ModelError(
            f"there is no model {claim.model!r} under the model roots",
            field="model",
            remedy="studioq models lists those that are there",
        )
    check_model(claim.kind, claim.model, path, roots)
    if isinstance(spec, ConvertSpec):
        quantised.check_source(spec, path)
    return path


def _adapter(
    session: Session, claim: Claim, paths: Paths, inputs: dict[str, Path], spec: Spec
) -> Path | None:
    """Return the folder of the adapter to start with, from another job or from uploaded files."""
    for reference in spec.job_references().values():
        # Whether its user may use it was decided when the job was accepted.
        return find_adapter(session, paths, reference, claim.user_id, True)
    cited = _ADAPTER_PLACES.keys() & inputs.keys()
    if not cited:
        return None
    folder = _fresh_folder(paths.job(claim.job_id) / f"adapter-{claim.number}")
    for place in cited:
        (folder / _ADAPTER_PLACES[place]).symlink_to(inputs[place])
    return folder


def _target(session: Session, claim: Claim, roots: ModelRoots, spec: Spec) -> Path | None:
    """Return where the model is to be that the job makes."""
    if not isinstance(spec, ConvertSpec):
        return None
    user = session.get_one(User, claim.user_id)
    return target_folder(roots.roots[0], user=user.name, uid=user.uid, to=spec.to)


def _last_checkpoint(
    session: Session, claim: Claim, paths: Paths
) -> tuple[Path | None, int | None]:
    """Return the newest checkpoint of the job that is whole, and its step."""
    if claim.number == 1:
        return None, None
    rows = session.execute(
        select(Checkpoint, Attempt)
        .join(Attempt, Attempt.id == Checkpoint.attempt_id)
        .where(Checkpoint.job_id == claim.job_id)
        .order_by(Checkpoint.id.desc())
    )
    for checkpoint, attempt in rows:
        folder = checkpoint_folder(paths, checkpoint, attempt)
        if is_whole(folder):
            return folder, checkpoint.step
        log.info("action=checkpoint_unusable job=%d step=%d", claim.job_id, checkpoint.step)
    return None, None


def _fresh_folder(folder: Path) -> Path:
    with disk_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    return folder


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
