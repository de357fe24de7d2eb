"""Fitting a LoRA file to the layers of a model.

The rule this module protects: a file for another model is refused in words that say which, and a
matrix that does not fit its layer is never bent until it does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import mlx.core as mx

from daemon.errors import ModelError
from workers.diffusion.lora_files import LoraFile
from workers.diffusion.lora_layers import Delta, Shape, shape_of_down
from workers.diffusion.lora_names import Place

_SHOWN = 3
_TEXT = re.compile(r"lora_te\d?_|text_encoder(_\d)?\.")
_CROSS = re.compile(r".*attn2[._](processor[._])?to_[kv]")

# Numbers a token of the text that a UNet attends to, by the released families.
_FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}

# Parts of layers' names in models of other kinds.
_FOREIGN = {
    r"(double|single|single_transformer)_blocks": "FLUX",
    r"joint_(transformer_)?blocks": "Stable Diffusion 3",
    r"lora_prior_": "Stable Cascade",
    r"^(transformer|diffusion_model\.layers)\.": "a diffusion transformer",
    r"model\.layers\.\d": "a language model",
}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A layer of the model and what one file adds to it."""

    place: Place
    delta: Delta


def fit(file: LoraFile, names: Mapping[str, Place], scale: float) -> list[Fit]:
    """Return what the file adds, ``scale`` times, to each layer that it names.

    ``names``: the model's layers by every name of theirs. Of two names for one layer in the file
    the first counts.

    Raises:
        ModelError: the file is for another model, names no layer of a network that it is for, or
            has a matrix that does not fit its layer or is not finite.
    """
    _check_family(file, names)
    _check_some(file, names)
    chosen: dict[str, str] = {}
    for layer in file.pairs:
        if layer in names:
            chosen.setdefault(names[layer].name, layer)
    fits = [
        Fit(place=names[layer], delta=_delta(file, layer, names[layer], scale))
        for layer in chosen.values()
    ]
    _check_finite(file, fits)
    return fits


def unmatched(file: LoraFile, names: Collection[str]) -> tuple[str, ...]:
    """Return the names in the file that are no layer's of the model."""
    return (*(layer for layer in file.pairs if layer not in names), *file.others)


def listed(names: Iterable[str]) -> str:
    """Return the first names for a message, and how many more there are."""
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _check_family(file: LoraFile, names: Mapping[str, Place]) -> None:
    """Compare the width of the text that the UNet attends to: it tells the families apart."""
    theirs = next((_width_in(file, layer) for layer in file.pairs if _CROSS.fullmatch(layer)), None)
    cross = (place for place in names.values() if _CROSS.fullmatch(place.path))
    ours = next((place.layer.weight.shape[-1] for place in cross), None)
    if theirs is not None and ours is not None and theirs != ours:
        raise ModelError(
            f"{file.name} is a LoRA for {_FAMILIES.get(theirs, 'another model')}, whose text has "
            f"{theirs} numbers a token; this model is {_FAMILIES.get(ours, 'one')} of {ours}",
            remedy="use a LoRA file and a model of the same family",
        )


def _width_in(file: LoraFile, layer: str) -> int | None:
    down = file.pairs[layer].down
    return file.tensors.shapes[down][1] if down and len(file.tensors.shapes[down]) > 1 else None


def _check_some(file: LoraFile, names: Collection[str]) -> None:
    """Each network that the file is for must have at least one of its layers."""
    text = [layer for layer in file.pairs if _TEXT.match(layer)]
    unet = [layer for layer in file.pairs if not _TEXT.match(layer)]
    for network, layers in (("UNet", unet), ("text encoders", text)):
        if layers and not any(layer in names for layer in layers):
            foreign = next((w for p, w in _FOREIGN.items() if re.search(p, layers[0])), None)
            what = f"; it is for {foreign}" if foreign else ""
            raise ModelError(
                f"{file.name} matches no layer of this model's {network}: it has "
                f"{listed(layers)}{what}",
                remedy="use a LoRA file that was made for this family of models",
            )


def _delta(file: LoraFile, layer: str, place: Place, scale: float) -> Delta:
    down, up = file.matrices(layer)
    rank = down.shape[0]
    wanted_down = shape_of_down(place.layer, rank)
    wanted_up = (place.layer.weight.shape[0], rank)
    fitted_down, fitted_up = _fitted(down, len(wanted_down)), _fitted(up, 2)
    if fitted_down.shape != wanted_down or fitted_up.shape != wanted_up:
        raise ModelError(
            f"{file.name} does not fit {place.name}: its matrices have the shapes "
            f"{_shown(fitted_down.shape)} and {_shown(fitted_up.shape)}, "
            f"the layer needs {_shown(wanted_down)} and {_shown(wanted_up)}",
            remedy="use a LoRA file that was made for this family of models",
        )
    factor = scale * file.weight(layer, place.name, rank)
    if not math.isfinite(factor):
        raise ModelError(f"{file.name}: the factor for {place.name} is {factor}")
    return Delta(down=fitted_down, up=fitted_up, factor=factor)


def _fitted(array: mx.array, dimensions: int) -> mx.array:
    """Return a matrix or kernel in MLX's layout; a kernel of one pixel and a matrix are the same.

    PyTorch keeps kernels as (out, in, y, x), MLX as (out, y, x, in).
    """
    if array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 4 and dimensions == 2 and array.shape[1:3] == (1, 1):
        return array.reshape(array.shape[0], array.shape[3])
    if array.ndim == 2 and dimensions == 4:
        return array[:, None, None, :]
    return array


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _check_finite(file: LoraFile, fits: list[Fit]) -> None:
    good = [mx.isfinite(i.delta.down).all() & mx.isfinite(i.delta.up).all() for i in fits]
    if not bool(mx.stack(good).all()):
        place = next(item.place for item, fine in zip(fits, good, strict=True) if not bool(fine))
        raise ModelError(
            f"{file.name} holds numbers that are not finite, in the matrices for {place.name}",
            remedy="use another LoRA file; this one was damaged in training",
        )
