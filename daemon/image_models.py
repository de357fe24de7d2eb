"""What makes a folder or file an image model, told from its names and headers.

The rule this module protects: a model that lacks a part is refused before it is queued, and the
part is named. Imports no MLX: whether the weights fit together is the engine's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.errors import ModelError
from daemon.safetensors_header import read_safetensors_header

INDEX = "model_index.json"

# The parts of a diffusers folder that hold weights, and those that pictures are made without.
NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
SPARE_PARTS = frozenset({"safety_checker", "feature_extractor", "image_encoder"})

_CHECKPOINT_NAMES = ("model.diffusion_model.", "first_stage_model.")
_OTHER_FORMATS = ("config.json", "params.json")
_MOST_HEADER = 16 * 2**20
_AGAIN = "copy or download the whole folder again"


def has_networks(folder: Path) -> bool:
    """Return whether weights lie one level down, where diffusers keeps them (``unet/…``)."""
    return any(next((folder / part).glob("*.safetensors"), None) for part in NETWORKS)


def is_pipeline(path: Path) -> bool:
    """Return whether a folder is one of diffusers', be it whole or not."""
    return (path / INDEX).is_file() or has_networks(path)


def checkpoint_file(path: Path) -> Path | None:
    """Return the file that would be a single-file checkpoint: ``path``, or the only one in it."""
    if path.is_file():
        return path if path.suffix == ".safetensors" else None
    if any((path / name).exists() for name in _OTHER_FORMATS):
        return None
    found = list(path.glob("*.safetensors"))
    return found[0] if len(found) == 1 else None


def is_checkpoint(path: Path) -> bool:
    """Return whether a file, or the only one of a folder, holds Stable Diffusion's tensors."""
    file = checkpoint_file(path)
    if file is None:
        return False
    try:
        return any(name.startswith(_CHECKPOINT_NAMES) for name in _tensors(file))
    except (ModelError, OSError):
        return False


def why_no_image_model(path: Path) -> str:
    """Return why a model that looks like none known cannot make pictures.

    Raises:
        ModelError: it is a safetensors file that is damaged.
    """
    file = checkpoint_file(path)
    if file is None:
        return f"it has neither a {INDEX} nor one single checkpoint file"
    first = next(iter(_tensors(file)), None)
    if first is None:
        return f"{file.name} holds no tensors"
    return f"{file.name} is no checkpoint of an image model: its tensors are called {first!r}"


def check_parts(name: str, folder: Path) -> None:
    """Refuse a diffusers folder that lacks something that its index names.

    Raises:
        ModelError: names the part.
    """
    if not (folder / INDEX).is_file():
        raise ModelError(f"{name} has no {INDEX}", remedy=_AGAIN)
    for part in _parts(name, folder):
        if not (folder / part).is_dir():
            raise ModelError(f"{name} is incomplete: it has no {part}/", remedy=_AGAIN)
        if part in NETWORKS:
            _check_network(name, folder / part)


def _parts(name: str, folder: Path) -> Iterator[str]:
    """Yield the parts that the index names; one that is left out is null or a pair of nulls."""
    index = _read_index(name, folder)
    for part, entry in index.items():
        listed = isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
        named = bool(part) and not part.startswith(("_", ".")) and "/" not in part
        if listed and named and part not in SPARE_PARTS:
            yield part


def _read_index(name: str, folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name}: {INDEX} cannot be read: {error}", remedy=_AGAIN) from None
    if not isinstance(index, dict) or not any(part in index for part in NETWORKS):
        raise ModelError(f"{name}: {INDEX} names no parts of an image model", remedy=_AGAIN)
    return index


def _check_network(name: str, part: Path) -> None:
    if not (part / "config.json").is_file():
        raise ModelError(f"{name} is incomplete: {part.name}/ has no config.json", remedy=_AGAIN)
    if next(part.glob("*.safetensors"), None) is None:
        pickled = next((file.name for file in sorted(part.glob("*.bin"))), None)
        found = f"only {pickled}, a pickle, which is never read" if pickled else "none"
        raise ModelError(
            f"{name} is incomplete: {part.name}/ needs weights in safetensors, and has {found}",
            remedy="use the model's version in safetensors",
        )


def _tensors(file: Path) -> Iterator[str]:
    header = read_safetensors_header(file, most=_MOST_HEADER)
    return (tensor.name for tensor in header.tensors)
