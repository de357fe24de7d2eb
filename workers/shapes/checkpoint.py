"""Checkpoints of a stage: named tensors of weights, average and moments, and how far it came.

The rule this module protects: there is a whole checkpoint at every moment. A new one is written
beside the old and takes its name; each file holds one of the vectors, so that none is large.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from daemon.errors import ModelError
from workers.files import write_json
from workers.shapes.flat import Layout
from workers.shapes.optimizer import State

CHECKPOINT = "checkpoint"
STATE = "state.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Steps made, and the seconds that they took in all runs."""

    step: int = 0
    seconds: float = 0.0


def write_checkpoint(
    folder: Path, layout: Layout, state: State, progress: Progress, identity: Mapping[str, Any]
) -> None:
    """Write ``folder/checkpoint`` in place of the one before."""
    present, new, old = (folder / f"{CHECKPOINT}{end}" for end in ("", ".new", ".old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, vector in state.vectors().items():
        mx.save_safetensors(str(new / f"{name}.safetensors"), layout.named(vector))
    write_json(new / STATE, {**asdict(progress), "identity": dict(identity)})
    shutil.rmtree(old, ignore_errors=True)
    if present.is_dir():
        present.rename(old)
    new.rename(present)
    shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(
    folder: Path, layout: Layout, identity: Mapping[str, Any]
) -> tuple[State, Progress] | None:
    """Return the state and progress in ``folder``, None if there is no checkpoint.

    Raises:
        ModelError: it was made with other options, or its files are damaged.
    """
    path = checkpoint_folder(folder)
    if path is None:
        return None
    try:
        saved = json.loads((path / STATE).read_bytes())
        vectors = {
            name: layout.vector(read_tensors(path / f"{name}.safetensors"))
            for name in ("weights", "first", "second", "average")
        }
        progress = Progress(step=int(saved["step"]), seconds=float(saved["seconds"]))
        given = saved["identity"]
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"the checkpoint in {path} cannot be read: {error}", remedy="delete the folder"
        ) from None
    if given != dict(identity):
        raise ModelError(
            f"the checkpoint in {path} was made with {given}, asked for is {dict(identity)}",
            remedy="give the options of before, or delete the folder",
        )
    return State(**vectors), progress


def checkpoint_folder(folder: Path) -> Path | None:
    """Return the checkpoint of a stage: the present one, or the one that it was replacing."""
    paths = (folder / CHECKPOINT, folder / f"{CHECKPOINT}.old")
    return next((path for path in paths if (path / STATE).is_file()), None)


def read_progress(folder: Path) -> Progress:
    """Return how far a stage came.

    Raises:
        ModelError: there is no checkpoint.
    """
    saved = json.loads((_checkpoint(folder) / STATE).read_bytes())
    return Progress(step=int(saved["step"]), seconds=float(saved["seconds"]))


def read_average(folder: Path) -> dict[str, mx.array]:
    """Return the averaged weights of a stage's checkpoint, by name.

    Raises:
        ModelError: there is no checkpoint.
    """
    return read_tensors(_checkpoint(folder) / "average.safetensors")


def _checkpoint(folder: Path) -> Path:
    path = checkpoint_folder(folder)
    if path is None:
        raise ModelError(f"{folder} holds no checkpoint", remedy="train this stage first")
    return path


def read_tensors(path: Path) -> dict[str, mx.array]:
    """Return the tensors of a safetensors file by name."""
    loaded: Any = mx.load(str(path))
    return dict(loaded)
