"""Reading an image model's folder in diffusers' layout.

The rule this module protects: the folder says what it is (``model_index.json``), and what it says
must be there. A pickled file is never opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from daemon.errors import ModelError
from daemon.image_models import INDEX
from workers.diffusion.components import Component, Components
from workers.diffusion.tensor_files import open_tensors
from workers.diffusion.tokenizer import Tokenizer

_NETWORK_FILES = ("diffusion_pytorch_model", "model")
_VARIANTS = ("", ".fp16", ".fp32", ".bf16", ".non_ema")
_FAMILIES = ("StableDiffusion", "LatentConsistencyModel")

# Parts without which a pipeline would make other pictures than those it is for.
_STEERING = ("controlnet", "adapter", "depth_estimator", "low_res_scheduler", "motion_adapter")
# What the names of such pipelines hold, whatever their parts are called.
_OTHER_USES = ("ControlNet", "Adapter", "Depth2Img", "Pix2Pix", "Upscale", "GLIGEN", "LDM3D")
_AGAIN = "download the model again"


def read_folder(folder: Path) -> Components:
    """Read the configurations of a model's folder and open its weights.

    Raises:
        ModelError: it is no such folder, a component is missing, or a file is damaged.
    """
    index = _json(folder / INDEX)
    _check_pipeline(folder, index)
    names = [name for name in ("text_encoder", "text_encoder_2") if _listed(index, name)]
    return Components(
        unet=_component(folder, "unet"),
        vae=_component(folder, "vae"),
        text_encoders=tuple(_component(folder, name) for name in names),
        tokenizers=tuple(
            Tokenizer.from_folder(_subfolder(folder, name.replace("text_encoder", "tokenizer")))
            for name in names
        ),
        scheduler=_json(_subfolder(folder, "scheduler") / "scheduler_config.json"),
        files=tuple(model_files(folder)),
        zero_empty_negative=_zeros_for_nothing(index),
    )


def model_files(folder: Path) -> Iterator[Path]:
    """Yield the weights of a model's folder, in a fixed order.

    Raises:
        ModelError: a component has none.
    """
    index = _json(folder / INDEX)
    for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
        if name in ("unet", "vae") or _listed(index, name):
            yield from _weights_files(_subfolder(folder, name))


def _check_pipeline(folder: Path, index: Mapping[str, Any]) -> None:
    name = str(index.get("_class_name"))
    other = any(_listed(index, part) for part in _STEERING) or any(
        use in name for use in _OTHER_USES
    )
    if other or not name.startswith(_FAMILIES) or not _listed(index, "unet"):
        raise ModelError(
            f"{folder.name} is a {name}; what can be used is Stable Diffusion 1.x, 2.x and SDXL",
            remedy="choose another model; studioq models lists those that are there",
        )
    if not _listed(index, "text_encoder"):
        raise ModelError(
            f"{folder.name}/{INDEX} names no text encoder", remedy="use the whole pipeline's folder"
        )


def _listed(index: Mapping[str, Any], name: str) -> bool:
    """Say whether the index has the component; absent ones are null or a pair of nulls."""
    entry = index.get(name)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _zeros_for_nothing(index: Mapping[str, Any]) -> bool:
    """Say whether the pipeline guides away from zeros; SDXL's does unless it says otherwise."""
    usual = str(index["_class_name"]).startswith("StableDiffusionXL")
    return bool(index.get("force_zeros_for_empty_prompt", usual))


def _subfolder(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_dir():
        raise ModelError(
            f"{folder.name} is incomplete: its {name} is missing",
            remedy=f"copy the folder {name} of the model into it, or {_AGAIN}",
        )
    return path


def _component(folder: Path, name: str) -> Component:
    path = _subfolder(folder, name)
    weights: dict[str, mx.array] = {}
    for file in _weights_files(path):
        weights.update(open_tensors(file, f"{name}/{file.name}").arrays)
    return Component(
        config=_json(path / "config.json"), weights=weights, source=f"{folder.name}/{name}"
    )


def _weights_files(path: Path) -> list[Path]:
    """Return a component's files: one, or the shards that an index names."""
    for stem in _NETWORK_FILES:
        for variant in _VARIANTS:
            single = path / f"{stem}{variant}.safetensors"
            if single.is_file():
                return [single]
            index = path / f"{stem}.safetensors.index{variant}.json"
            if index.is_file():
                return _shards(index)
    pickled = next(path.glob("*.bin"), None)
    found = f"only {pickled.name}, which holds code" if pickled else "no safetensors"
    raise ModelError(
        f"{path.parent.name}/{path.name} has no weights that can be read: {found}",
        remedy="download the model's safetensors files",
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted({str(name) for name in _json(index)["weight_map"].values()})
    except (KeyError, AttributeError):
        shown = f"{index.parent.name}/{index.name}"
        raise ModelError(f"{shown} has no weight_map", remedy=_AGAIN) from None
    missing = [name for name in names if "/" in name or not (index.parent / name).is_file()]
    if missing:
        raise ModelError(f"{index.parent.name} lacks {missing[0]}", remedy=_AGAIN)
    return [index.parent / name for name in names]


def _json(path: Path) -> dict[str, Any]:
    shown = f"{path.parent.name}/{path.name}"
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{shown} is missing", remedy=_AGAIN) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{shown} cannot be read: {error}", remedy=_AGAIN) from None
    if not isinstance(data, dict):
        raise ModelError(f"{shown} is not an object", remedy=_AGAIN)
    return data
