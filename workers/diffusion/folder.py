"""Reading an image model's folder in diffusers' layout.

The rule this module protects: the folder says what it is (``model_index.json``), and what it says
must be there. What that is, and which files hold it, is asked of the module by which the daemon
looked at the folder (``daemon.image_files``), so that both see the same. No pickle is ever opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from daemon.image_files import ImageFolder, Json, is_listed
from daemon.image_models import INDEX
from workers.diffusion.components import Component, Components
from workers.diffusion.tensor_files import open_tensors
from workers.diffusion.tokenizer import Tokenizer


def read_folder(path: Path) -> Components:
    """Read the configurations of a model's folder and open its weights.

    Raises:
        ModelError: it is no such folder, a component is missing, or a file is damaged.
    """
    files = tuple(model_files(path))
    folder = ImageFolder(name=path.name, path=path)
    index = folder.read(INDEX)
    encoders = _text_encoders(index)
    return Components(
        unet=_component(folder, "unet"),
        vae=_component(folder, "vae"),
        text_encoders=tuple(_component(folder, name) for name in encoders),
        tokenizers=tuple(
            Tokenizer.from_folder(path / name.replace("text_encoder", "tokenizer"))
            for name in encoders
        ),
        scheduler=folder.read("scheduler/scheduler_config.json"),
        files=files,
        zero_empty_negative=_zeros_for_nothing(index),
    )


def model_files(path: Path) -> Iterator[Path]:
    """Yield the weights of a model's folder, in a fixed order, once it is found to be whole.

    Raises:
        ModelError: as ``read_folder``.
    """
    folder = ImageFolder(name=path.name, path=path)
    folder.check()
    for part in (*_text_encoders(folder.read(INDEX)), "unet", "vae"):
        yield from folder.weights(part)


def _text_encoders(index: Json) -> list[str]:
    return [name for name in ("text_encoder", "text_encoder_2") if is_listed(index, name)]


def _zeros_for_nothing(index: Json) -> bool:
    """Say whether the pipeline guides away from zeros; SDXL's does unless it says otherwise."""
    usual = str(index["_class_name"]).startswith("StableDiffusionXL")
    return bool(index.get("force_zeros_for_empty_prompt", usual))


def _component(folder: ImageFolder, part: str) -> Component:
    weights: dict[str, mx.array] = {}
    for file in folder.weights(part):
        weights.update(open_tensors(file, f"{folder.name}: {part}/{file.name}").arrays)
    return Component(
        config=folder.read(f"{part}/config.json"),
        weights=weights,
        source=f"{folder.name}/{part}",
    )
