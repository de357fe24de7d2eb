"""Checkpoints: a folder that is at once a usable adapter and the place to continue from.

The rule this module protects: a checkpoint folder is whole or does not exist. It is filled under
another name, synced and renamed; and what is read back must be what was written, for the same spec,
data and model. Adapters stay for good; the state needed to continue only in the newest two, because
the newest may not have reached the ledger when the process died.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from daemon.durable import sync_folder
from daemon.errors import ModelError, NonFiniteError
from workers import files
from workers.checkpoints import DIGESTS, STATE, damaged_file
from workers.language import lora

FOLDER = "checkpoints"
ADAPTER, CONFIG = "adapters.safetensors", "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"
METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
FORMAT = 1
KEPT_STATES = 2

_TO_CONTINUE = (OPTIMIZER, STATE, METRICS, SAMPLES)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a checkpoint holds.

    ``identity`` says which spec, data and model it belongs to; ``state`` is JSON; ``history`` is
    the content of the growing files by name.
    """

    step: int
    identity: str
    adapter: Mapping[str, mx.array]
    config: Mapping[str, Any]
    optimizer: Mapping[str, mx.array]
    state: Mapping[str, Any]
    history: Mapping[str, bytes]


def identity(spec: Mapping[str, Any], model: str) -> str:
    """Return the SHA-256 of the spec (with the hashes of its data) and the model's fingerprint."""
    text = json.dumps({"spec": spec, "model": model, "format": FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def name(step: int) -> str:
    """Return the folder of the checkpoint at ``step``, relative to the attempt's."""
    return f"{FOLDER}/{step:07d}"


def write(root: Path, snapshot: Snapshot) -> Path:
    """Write ``snapshot`` below the attempt's folder ``root``; return its folder.

    Raises:
        NonFiniteError: a number of the adapter is NaN or infinite; nothing is written.
        DiskFullError: the disk is full; nothing is left behind.
    """
    if not lora.is_finite(snapshot.adapter):
        raise NonFiniteError(
            f"the weights became NaN or infinite at iteration {snapshot.step}",
            remedy="lower the learning rate",
        )
    folder = root / name(snapshot.step)
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _fill(partial, snapshot)
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(folder.parent)
    return folder


def save_arrays(path: Path, arrays: Mapping[str, mx.array]) -> None:
    """Write a safetensors file: whole and synced, or not at all."""
    with files.whole_file(path) as file:
        mx.save_safetensors(file, dict(arrays))


def prune(root: Path) -> None:
    """Delete what is needed only to continue from all checkpoints but the newest two."""
    written = sorted(path for path in (root / FOLDER).iterdir() if path.name.isdigit())
    for folder in written[:-KEPT_STATES]:
        for file in _TO_CONTINUE:
            (folder / file).unlink(missing_ok=True)


def read(folder: Path, identity: str) -> Snapshot:
    """Read the checkpoint in ``folder``.

    Raises:
        ModelError: it is incomplete or damaged, or belongs to another spec, data or model.
    """
    state = _read_state(folder)
    if state["identity"] != identity:
        raise ModelError(
            f"checkpoint {folder.name} belongs to another spec, other data or another model",
            remedy="submit a new job; --resume job:N@STEP starts it from that adapter",
        )
    damaged = damaged_file(folder, state[DIGESTS])
    if damaged is not None:
        raise ModelError(f"checkpoint {folder.name}: {damaged} is missing or damaged")
    return Snapshot(
        step=state["step"],
        identity=identity,
        adapter=lora.load_arrays(folder / ADAPTER),
        config=json.loads((folder / CONFIG).read_bytes()),
        optimizer=lora.load_arrays(folder / OPTIMIZER),
        state=state["training"],
        history={file: (folder / file).read_bytes() for file in (METRICS, SAMPLES)},
    )


def _fill(folder: Path, snapshot: Snapshot) -> None:
    save_arrays(folder / ADAPTER, snapshot.adapter)
    files.write_json(folder / CONFIG, snapshot.config)
    save_arrays(folder / OPTIMIZER, snapshot.optimizer)
    for file, content in snapshot.history.items():
        files.write_bytes(folder / file, content)
    state = {
        "format": FORMAT,
        "step": snapshot.step,
        "identity": snapshot.identity,
        "training": snapshot.state,
        DIGESTS: dict(_digests(folder)),
    }
    files.write_json(folder / STATE, state)


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        yield path.name, files.sha256_of(path)


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"checkpoint {folder.name} cannot be read: {error}") from error
    if state.get("format") != FORMAT:
        raise ModelError(
            f"checkpoint {folder.name} has format {state.get('format')}; "
            f"this version reads format {FORMAT}",
            remedy="retry the job from its beginning with this version",
        )
    return state
