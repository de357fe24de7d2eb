"""Folders of releases and npz models, written as publishers and MLX's examples wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.unit.language.original_cases import CASES, known_config, known_weights, release_weights
from tests.unit.language.torch_files import write_checkpoint

# The axis along which Meta's code splits a tensor over processes (fairscale's parallel layers).
ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
COLUMNS = ("wo", "w2")

Arrays = Mapping[str, np.ndarray]


def write_release(
    folder: Path, name: str, shards: list[dict[str, np.ndarray]] | None = None, **params: Any
) -> Path:
    """Write a release; ``params`` replace those of the case, None leaves one out."""
    write_params(folder, name, "params.json", **params)
    for number, weights in enumerate(shards or [release_weights(CASES[name])]):
        write_checkpoint(folder / f"consolidated.{number:02}.pth", weights)
    return folder


def write_params(folder: Path, name: str, file: str, **params: Any) -> None:
    folder.mkdir(exist_ok=True)
    changed = CASES[name].params | params
    wanted = {key: value for key, value in changed.items() if value is not None}
    (folder / file).write_text(json.dumps(wanted))


def split(weights: Arrays, count: int, embeddings_axis: int = 1) -> list[dict[str, np.ndarray]]:
    """Split weights as Meta does; rotary frequencies come along in every file."""
    shards: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for name, array in weights.items():
        part = name.split(".")[-2]
        axis = {"tok_embeddings": embeddings_axis} | dict.fromkeys(ROWS, 0)
        axis |= dict.fromkeys(COLUMNS, 1)
        whole = part not in axis
        parts = [array] * count if whole else np.split(array, count, axis[part])
        for shard, piece in zip(shards, parts, strict=True):
            shard[name] = piece
    for shard in shards:
        shard["rope.freqs"] = np.ones(4, np.float32)
    return shards


def write_safetensors_release(folder: Path, name: str, files: int) -> Path:
    """Write a release as Mistral's newer ones are, its tensors dealt out to the files."""
    write_params(folder, name, "params.json")
    weights = list(release_weights(CASES[name]).items())
    for number in range(files):
        file = f"consolidated-{number + 1:05}-of-{files:05}" if files > 1 else "consolidated"
        part = {key: mx.array(array) for key, array in weights[number::files]}
        mx.save_safetensors(str(folder / f"{file}.safetensors"), part)
    return folder


def write_npz(
    folder: Path,
    name: str,
    *,
    known_names: bool = False,
    files: int = 1,
    compressed: bool = False,
    settings: str = "config.json",
    **changes: Any,
) -> Path:
    """Write an npz model; ``known_names``: as the LoRA example did from Hugging Face's folders.

    ``changes`` replace settings, None leaves one out.
    """
    folder.mkdir()
    case = CASES[name]
    if known_names and settings == "config.json":
        changed = known_config(case) | changes
        (folder / settings).write_text(json.dumps(changed))
    else:
        write_params(folder, name, settings, model_type=case.architecture.lower(), **changes)
    weights = list((known_weights(case) if known_names else release_weights(case)).items())
    save = np.savez_compressed if compressed else np.savez
    for number in range(files):
        file = "weights.npz" if files == 1 else f"weights.{number:02}.npz"
        part: dict[str, Any] = dict(weights[number::files])
        save(folder / file, **part)
    return folder


def write_known_folder(folder: Path, name: str) -> Path:
    """Write a Hugging Face folder."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(known_config(CASES[name])))
    weights = {key: mx.array(array) for key, array in known_weights(CASES[name]).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    return folder
