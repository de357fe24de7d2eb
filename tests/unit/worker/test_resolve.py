"""Names in a job become paths, or a clear error; adapters are found by who may use them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from daemon.adapters import check_adapter, find_adapter
from daemon.errors import JobError, ModelError, NotFoundError
from daemon.ledger import attempts, jobs
from daemon.ledger.attempts import Claim, Ending, File
from daemon.ledger.states import AttemptState
from daemon.ledger.store import Ledger
from daemon.ledger.tables import Job
from daemon.locate import Paths
from daemon.models import ModelRoots
from tests.unit.image_folders import write_image_folder
from workers.checkpoints import DIGESTS, STATE
from workers.files import sha256_of, write_json
from workers.resolve import Resolved, resolve

NOW = 1_000_000.0
SHA = "a" * 64
TRAIN = {
    "kind": "train",
    "spec": {"seed": 1, "model": "m", "data": {"rows": {"name": "rows.jsonl", "sha256": SHA}}},
}
MakeClaim = Callable[..., Claim]


def resolved(ledger: Ledger, paths: Paths, claim: Claim) -> Resolved:
    with ledger.reading() as session:
        return resolve(session, claim, paths=paths, roots=ModelRoots([paths.models]))


def end(ledger: Ledger, claim: Claim, state: AttemptState, files: tuple[File, ...] = ()) -> None:
    with ledger.writing() as session:
        attempts.end(session, claim.fence, Ending(state=state, files=files), now=NOW)


def add_checkpoint(ledger: Ledger, paths: Paths, claim: Claim, step: int) -> Path:
    folder = paths.attempt(claim.job_id, claim.number) / f"c{step}"
    write_adapter(folder)
    digests = {path.name: sha256_of(path) for path in folder.iterdir()}
    write_json(folder / STATE, {"step": step, DIGESTS: digests})
    with ledger.writing() as session:
        attempts.add_checkpoint(
            session, claim.fence, step=step, folder=f"c{step}", files=(), now=NOW
        )
    return folder


def write_adapter(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("adapters.safetensors", "adapter_config.json"):
        (folder / name).write_bytes(b"{}")


def succeed(ledger: Ledger, paths: Paths, claim: Claim) -> Path:
    folder = paths.attempt(claim.job_id, claim.number)
    write_adapter(folder)
    file = File(name="adapters.safetensors", kind="adapter", bytes=2, sha256=SHA)
    end(ledger, claim, AttemptState.SUCCEEDED, (file,))
    return folder


def find(ledger: Ledger, paths: Paths, reference: str, user: int, admin: bool = False) -> Path:
    with ledger.reading() as session:
        return find_adapter(session, paths, reference, user, admin)


def check(ledger: Ledger, paths: Paths, reference: str, user: int) -> bool:
    with ledger.reading() as session:
        return check_adapter(session, paths, reference, user, False)


def claim_again(ledger: Ledger, claim: Claim) -> Claim:
    with ledger.writing() as session:
        again = attempts.claim(session, claim.job_id, worker="w2", device="cpu", now=NOW)
    assert again is not None
    return again


def test_a_plain_job_gets_an_empty_folder(ledger: Ledger, paths: Paths, claim: MakeClaim) -> None:
    claimed = claim()
    folder = paths.attempt(claimed.job_id, 1)
    folder.mkdir(parents=True)
    (folder / "left").write_bytes(b"over")
    found = resolved(ledger, paths, claimed)
    assert found.start.folder == str(folder)
    assert list(folder.iterdir()) == []
    assert (found.start.attempt, found.start.job, found.step) == (
        claimed.fence,
        claimed.job_id,
        None,
    )


def test_inputs_and_model_become_paths(
    ledger: Ledger, paths: Paths, claim: MakeClaim, tiny_model: Path
) -> None:
    paths.blob(SHA).parent.mkdir()
    paths.blob(SHA).write_bytes(b"rows")
    shutil.copytree(tiny_model, paths.models / "m")
    inputs = {"data.rows": ("rows.jsonl", SHA)}
    start = resolved(ledger, paths, claim(model="m", inputs=inputs, **TRAIN)).start
    assert start.inputs == {"data.rows": str(paths.blob(SHA))}
    assert start.model == str(paths.models / "m")


def test_what_is_missing_is_named(ledger: Ledger, paths: Paths, claim: MakeClaim) -> None:
    with pytest.raises(ModelError, match="'nowhere'"):
        resolved(ledger, paths, claim(model="nowhere"))
    with pytest.raises(JobError, match=r"rows\.jsonl"):
        resolved(ledger, paths, claim(inputs={"data.rows": ("rows.jsonl", SHA)}, **TRAIN))


def test_a_later_attempt_goes_on_from_the_newest_checkpoint_there_is(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    first = claim()
    kept = add_checkpoint(ledger, paths, first, 10)
    lost = add_checkpoint(ledger, paths, first, 20)
    end(ledger, first, AttemptState.INTERRUPTED)
    second = claim_again(ledger, first)
    assert resolved(ledger, paths, second).start.checkpoint == str(lost)
    lost.rename(lost.with_name("gone"))
    found = resolved(ledger, paths, second)
    assert (found.start.checkpoint, found.step) == (str(kept), 10)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [Path.unlink, cut], ids=["missing", "truncated"])
@pytest.mark.parametrize("name", [STATE, "adapters.safetensors"])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(
    ledger: Ledger,
    paths: Paths,
    claim: MakeClaim,
    name: str,
    harm: Callable[[Path], None],
) -> None:
    first = claim()
    kept = add_checkpoint(ledger, paths, first, 10)
    harm(add_checkpoint(ledger, paths, first, 20) / name)
    end(ledger, first, AttemptState.INTERRUPTED)
    second = claim_again(ledger, first)
    found = resolved(ledger, paths, second)
    assert (found.start.checkpoint, found.step) == (str(kept), 10)
    harm(kept / name)
    found = resolved(ledger, paths, second)
    assert (found.start.checkpoint, found.step) == (None, None)


def test_uploaded_adapter_files_make_a_folder(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    inputs, spec = {}, {"seed": 1, "model": "m", "prompt": "hi", "adapter": {}}
    for place, digit in (("weights", "b"), ("config", "c")):
        blob = paths.blob(digit * 64)
        blob.parent.mkdir()
        blob.write_bytes(place.encode())
        inputs[f"adapter.{place}"] = (place, digit * 64)
        spec["adapter"][place] = {"name": place, "sha256": digit * 64}  # type: ignore[index]
    start = resolved(ledger, paths, claim(kind="infer", spec=spec, inputs=inputs)).start
    assert start.adapter is not None
    assert (Path(start.adapter) / "adapters.safetensors").read_bytes() == b"weights"
    assert (Path(start.adapter) / "adapter_config.json").read_bytes() == b"config"


def test_an_uploaded_adapter_may_have_no_configuration(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    blob = paths.blob("b" * 64)
    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    uploaded = {"weights": {"name": "adapters.npz", "sha256": "b" * 64}}
    spec = {"seed": 1, "model": "m", "prompt": "hi", "adapter": uploaded}
    inputs = {"adapter.weights": ("adapters.npz", "b" * 64)}
    start = resolved(ledger, paths, claim(kind="infer", spec=spec, inputs=inputs)).start
    assert start.adapter is not None
    assert [file.name for file in Path(start.adapter).iterdir()] == ["adapters.safetensors"]


def test_an_adapter_of_another_job_is_found(ledger: Ledger, paths: Paths, claim: MakeClaim) -> None:
    trained = claim(**TRAIN)
    folder = succeed(ledger, paths, trained)
    spec = {"seed": 1, "model": "m", "prompt": "hi", "adapter": f"job:{trained.job_id}"}
    start = resolved(ledger, paths, claim(kind="infer", spec=spec)).start
    assert start.adapter == str(folder)


def test_a_checkpoint_is_an_adapter_whatever_became_of_the_job(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    trained = claim(**TRAIN)
    folder = add_checkpoint(ledger, paths, trained, 10)
    reference = f"job:{trained.job_id}"
    assert find(ledger, paths, f"{reference}@10", trained.user_id) == folder
    end(ledger, trained, AttemptState.CANCELLED)
    assert find(ledger, paths, f"{reference}@10", trained.user_id) == folder
    with pytest.raises(ModelError, match="was cancelled") as caught:
        find(ledger, paths, reference, trained.user_id)
    assert f"{reference}@10" in str(caught.value.remedy)
    with pytest.raises(ModelError, match="no checkpoint at step 11"):
        find(ledger, paths, f"{reference}@11", trained.user_id)


def test_a_failed_job_without_checkpoints_has_no_adapter(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    trained = claim(**TRAIN)
    end(ledger, trained, AttemptState.FAILED)
    with pytest.raises(ModelError, match="failed, so it has no final adapter"):
        check(ledger, paths, f"job:{trained.job_id}", trained.user_id)


def test_an_adapter_that_is_still_being_made_is_not_refused(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    trained = claim(**TRAIN)
    reference = f"job:{trained.job_id}"
    assert not check(ledger, paths, reference, trained.user_id)
    assert not check(ledger, paths, f"{reference}@10", trained.user_id)
    add_checkpoint(ledger, paths, trained, 10)
    assert check(ledger, paths, f"{reference}@10", trained.user_id)


def test_only_owner_admin_and_whom_it_is_shared_with_may_use_it(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    trained = claim(**TRAIN)
    stranger = claim(uid=502).user_id
    folder = succeed(ledger, paths, trained)
    reference = f"job:{trained.job_id}"
    with pytest.raises(NotFoundError, match="not shared"):
        find(ledger, paths, reference, stranger)
    assert find(ledger, paths, reference, stranger, admin=True) == folder
    with ledger.writing() as session:
        session.execute(update(Job).where(Job.id == trained.job_id).values(share=True))
    assert find(ledger, paths, reference, stranger) == folder


def test_other_references_are_refused(ledger: Ledger, paths: Paths, claim: MakeClaim) -> None:
    noop = claim()
    with pytest.raises(NotFoundError, match="no job 99"):
        find(ledger, paths, "job:99", noop.user_id)
    with pytest.raises(ModelError, match="kind noop"):
        find(ledger, paths, f"job:{noop.job_id}", noop.user_id)


def test_an_adapter_whose_files_are_gone_is_refused(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    trained = claim(**TRAIN)
    (succeed(ledger, paths, trained) / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"adapter_config\.json is missing"):
        find(ledger, paths, f"job:{trained.job_id}", trained.user_id)


def test_a_retried_job_can_be_resolved_again(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    first = claim()
    end(ledger, first, AttemptState.FAILED)
    with ledger.writing() as session:
        jobs.retry(session, first.job_id, actor="ada", now=NOW)
    options: dict[str, Any] = {"paths": paths, "ledger": ledger}
    assert resolved(claim=claim_again(ledger, first), **options).start.number == 2


def test_a_model_of_another_kind_fails_the_job_before_it_starts(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    (paths.models / "m.gguf").write_bytes(b"GGUF")
    claimed = claim(kind="diffuse", model="m", spec={"seed": 1, "prompt": "x", "model": "m"})
    with pytest.raises(ModelError, match=r"m is a language model \(gguf\)"):
        resolved(ledger, paths, claimed)


def test_the_files_of_a_diffusion_become_paths(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    paths.blob(SHA).parent.mkdir()
    paths.blob(SHA).write_bytes(b"content")
    write_image_folder(paths.models / "m")
    file = {"name": "x", "sha256": SHA}
    spec = {"seed": 1, "prompt": "x", "model": "m", "image": file, "lora": [{"file": file}]}
    inputs = dict.fromkeys(("image", "lora.0.file"), ("x", SHA))
    start = resolved(
        ledger, paths, claim(kind="diffuse", model="m", spec=spec, inputs=inputs)
    ).start
    assert start.inputs == {place: str(paths.blob(SHA)) for place in inputs}
    assert start.model == str(paths.models / "m")


CONVERT = {"seed": 1, "model": "m", "to": "new"}


def test_a_conversion_is_told_where_to_write(
    ledger: Ledger, paths: Paths, claim: MakeClaim, tiny_model: Path
) -> None:
    shutil.copytree(tiny_model, paths.models / "m")
    start = resolved(ledger, paths, claim(kind="convert", model="m", spec=CONVERT)).start
    assert start.model == str(paths.models / "m")
    assert start.target == str(paths.models / "user501" / "new")
    assert not (paths.models / "user501").exists()
    assert resolved(ledger, paths, claim()).start.target is None


def test_an_adapter_to_merge_comes_from_a_job_or_from_files(
    ledger: Ledger, paths: Paths, claim: MakeClaim
) -> None:
    trained = claim(**TRAIN)
    folder = succeed(ledger, paths, trained)
    spec: dict[str, Any] = CONVERT | {"fuse": f"job:{trained.job_id}"}
    start = resolved(ledger, paths, claim(kind="convert", spec=spec)).start
    assert start.adapter == str(folder)

    paths.blob(SHA).parent.mkdir()
    paths.blob(SHA).write_bytes(b"weights")
    spec = CONVERT | {"fuse": {"weights": {"name": "adapters.npz", "sha256": SHA}}}
    inputs = {"fuse.weights": ("adapters.npz", SHA)}
    start = resolved(ledger, paths, claim(kind="convert", spec=spec, inputs=inputs)).start
    assert start.adapter is not None
    assert (Path(start.adapter) / "adapters.safetensors").read_bytes() == b"weights"


def test_a_source_that_came_quantised_is_refused_before_the_engine_has_it(
    ledger: Ledger, paths: Paths, claim: MakeClaim, tiny_model: Path
) -> None:
    shutil.copytree(tiny_model, paths.models / "m")
    config = json.loads((tiny_model / "config.json").read_bytes())
    config["quantization"] = {"group_size": 64, "bits": 4}
    (paths.models / "m" / "config.json").write_text(json.dumps(config))
    claimed = claim(kind="convert", model="m", spec=CONVERT | {"quantize": "8"})
    with pytest.raises(ModelError, match="m is already quantized with 4 bits"):
        resolved(ledger, paths, claimed)
