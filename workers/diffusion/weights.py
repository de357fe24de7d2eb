"""Putting a checkpoint's tensors into a network: all of them, each in its place, nothing else.

The rule this module protects: a missing, unknown or misshapen tensor is an error that names it. A
weight left at its random start would give a picture that is wrong without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from daemon.errors import ModelError
from workers.diffusion.components import Component

Rename = Callable[[str], str | None]

# The attention of VAEs that diffusers wrote before version 0.18.
_OLD_VAE = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_VAE_NAME = re.compile(r"(mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.")

# Tensors that transformers wrote at times and that no network uses.
_UNUSED = ("embeddings.position_ids", "logit_scale")

_SHOWN = 3


def unet_name(name: str) -> str | None:
    """Return a UNet tensor's present name."""
    return name


def vae_name(name: str) -> str | None:
    """Return a VAE tensor's present name, from the old one if it is old."""
    return _OLD_VAE_NAME.sub(lambda match: f"{match[1]}.{_OLD_VAE[match[2]]}.", name)


def clip_name(name: str) -> str | None:
    """Return a text encoder tensor's name without its old prefix, None for what is not used."""
    name = name.removeprefix("text_model.")
    return None if name in _UNUSED else name


def load_weights(module: nn.Module, component: Component, rename: Rename, dtype: mx.Dtype) -> None:
    """Give ``module`` the component's tensors as ``dtype``; nothing is read before it is evaluated.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape: names the first ones.
    """
    given = _renamed(component.weights, rename)
    wanted = {name: tuple(array.shape) for name, array in tree_flatten(module.parameters())}
    _check_names(component.source, given.keys(), wanted.keys())
    fitted = [
        (name, _fitted(component.source, name, given[name], wanted[name]).astype(dtype))
        for name in wanted
    ]
    module.load_weights(fitted, strict=True)


def _renamed(weights: Mapping[str, mx.array], rename: Rename) -> dict[str, mx.array]:
    named = ((rename(name), array) for name, array in weights.items())
    return {name: array for name, array in named if name is not None}


def _check_names(source: str, given: Iterable[str], wanted: Iterable[str]) -> None:
    missing, unknown = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    reasons = [
        f"{word} {_listed(names)}"
        for word, names in (("it lacks", missing), ("there is no place for", unknown))
        if names
    ]
    if reasons:
        raise ModelError(
            f"{source} does not fit its configuration: {'; '.join(reasons)}",
            remedy="use the config.json that belongs to the weights, or download the model again",
        )


def _fitted(source: str, name: str, array: mx.array, wanted: tuple[int, ...]) -> mx.array:
    """Return the tensor in MLX's layout and in the wanted shape.

    PyTorch keeps convolutions as (out, in, y, x), MLX as (out, y, x, in). A convolution of one
    pixel and a linear layer are the same matrix, and checkpoints of different ages hold either.
    """
    if array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim == 4 and len(wanted) == 2 and array.shape[1:3] == (1, 1):
        array = array.reshape(array.shape[0], array.shape[3])
    if array.ndim == 2 and len(wanted) == 4 and wanted[1:3] == (1, 1):
        array = array[:, None, None, :]
    if tuple(array.shape) != wanted:
        raise ModelError(
            f"{source} does not fit its configuration: {name} has the shape "
            f"{_shape(array.shape)}, the network needs {_shape(wanted)}",
            remedy="use the config.json that belongs to the weights",
        )
    return mx.contiguous(array)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _listed(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


load_unet = partial(load_weights, rename=unet_name)
load_vae = partial(load_weights, rename=vae_name)
load_clip = partial(load_weights, rename=clip_name)
