"""What makes a folder or file an image model, told from its names and headers.

The rule this module protects: what is damaged or half there is still known for what it is meant to
be, so that it can be said what it lacks (``daemon.image_files``). Imports no MLX.
"""

from __future__ import annotations

from pathlib import Path

from daemon.errors import ModelError
from daemon.safetensors_header import read_safetensors_header

INDEX = "model_index.json"

# The parts of a diffusers folder that hold weights, and those that pictures are made without.
NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
SPARE_PARTS = frozenset({"safety_checker", "feature_extractor", "image_encoder"})

_CHECKPOINT_NAMES = ("model.diffusion_model.", "first_stage_model.")
_OTHER_FORMATS = ("config.json", "params.json")
_MOST_HEADER = 16 * 2**20


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
        return any(name.startswith(_CHECKPOINT_NAMES) for name in tensor_names(file))
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
    names = tensor_names(file)
    if not names:
        return f"{file.name} holds no tensors"
    return f"{file.name} is no checkpoint of an image model: its tensors are called {names[0]!r}"


def tensor_names(file: Path) -> list[str]:
    """Return the names of the tensors that a safetensors file declares, in their order there.

    Raises:
        ModelError: the file is damaged.
    """
    header = read_safetensors_header(file, most=_MOST_HEADER)
    return [tensor.name for tensor in header.tensors]
