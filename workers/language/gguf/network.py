"""mlx-lm's networks for GGUF files: built empty, each layer quantised as its tensor is stored.

The rule this module protects: before a number is read, every tensor has its place in the network
and the shape of that place, and no place is left empty.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mlx import nn
from mlx.utils import tree_flatten

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED
from workers.language.gguf.file import FOLDER, GGUFFile
from workers.language.gguf.names import mlx_name
from workers.language.headers import AFFINE_BITS, AFFINE_GROUP, TensorInfo

_QUANTISED = {"group_size": AFFINE_GROUP, "mode": "affine"}


def build_network(config: Mapping[str, Any]) -> nn.Module:
    """Build the network of a configuration; its weights are random numbers never computed."""
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    network = module.Model(module.ModelArgs.from_dict(dict(config)))
    if config.get("tie_word_embeddings") and "lm_head" in network:
        network.sanitize({})  # gemma3_text ties them if there are no weights for the output
    return network


def place_tensors(
    file: GGUFFile, layer_names: Mapping[str, str], network: nn.Module, taken: set[str]
) -> dict[str, TensorInfo]:
    """Return the tensor of each of the network's parameters, by mlx-lm's names.

    ``taken`` are the tensors that have been used otherwise.

    Raises:
        ModelError: a tensor has no place, or another shape than its place; a place is empty.
    """
    shapes = {name: tuple(array.shape) for name, array in tree_flatten(network.parameters())}
    placed: dict[str, TensorInfo] = {}
    for name, info in file.tensors.items():
        target = mlx_name(layer_names, name)
        if target is not None and target in shapes:
            _check_shape(file, info, shapes[target])
            placed[target] = info
        elif name not in taken:
            raise ModelError(
                f"{file.name} has a tensor {name}, which the {file.architecture} network "
                "does not know",
                remedy=FOLDER,
            )
    _check_whole(file, layer_names, set(shapes) - set(placed))
    return placed


def _check_shape(file: GGUFFile, info: TensorInfo, expected: tuple[int, ...]) -> None:
    if info.shape != expected:
        raise ModelError(
            f"{file.name} contradicts itself: tensor {info.name} has the shape {info.shape}, "
            f"and by its metadata it should have {expected}",
            remedy=DAMAGED,
        )


def _check_whole(file: GGUFFile, layer_names: Mapping[str, str], missing: set[str]) -> None:
    if missing:
        first = min(missing)
        known = [name for name in layer_names if f".{layer_names[name]}." in first]
        hint = f" (blk.….{known[0]})" if known else ""
        raise ModelError(
            f"{file.name} is incomplete: it has no tensor for {first}{hint}", remedy=DAMAGED
        )


def quantise(network: nn.Module, placed: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Quantise the layers whose tensors are; return what ``config.json`` says of that.

    Empty if none is: then there is nothing to say.
    """
    bits = {
        name: AFFINE_BITS[placed[f"{name}.weight"].dtype]
        for name, module in network.named_modules()
        if hasattr(module, "to_quantized") and placed[f"{name}.weight"].dtype in AFFINE_BITS
    }
    if not bits:
        return {}
    layers: dict[str, Any] = {name: _QUANTISED | {"bits": found} for name, found in bits.items()}
    nn.quantize(network, class_predicate=lambda name, _: layers.get(name, False))
    usual, _ = Counter(bits.values()).most_common(1)[0]
    return {"quantization": _QUANTISED | {"bits": usual} | layers}
