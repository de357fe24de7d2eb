"""What a conversion is going to do, layer by layer, known before a weight is read.

The rule this module protects: which layers are quantised and how, and what ``config.json`` says of
it, is decided by mlx-lm's own functions on a network of placeholders, so the result is the model
that mlx-lm would have made.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.utils import dequantize_model, get_total_parameters, quantize_model

from daemon.errors import ModelError
from daemon.quantised import check_not_again, describe
from daemon.specs import ConvertSpec
from workers.language.adapters import put_adapter
from workers.language.conversion.safetensors_file import TensorSpec, specs_of
from workers.language.conversion.units import (
    Arrays,
    Fuse,
    Packing,
    Unit,
    fused,
    packing_of,
    replaced,
)
from workers.language.source import ModelSource
from workers.models import own_tree

# The value of --dtype: MLX's type, and what Hugging Face's configurations call it.
DTYPES = {
    "bf16": (mx.bfloat16, "bfloat16"),
    "fp16": (mx.float16, "float16"),
    "fp32": (mx.float32, "float32"),
}
_MIXED = "mixed_"
_DEFAULT_GROUP = 64


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The layers in the network's order, what each becomes, and the new configuration.

    ``outputs``: for each unit, its tensors by their leaf's name. ``parameters``: how many numbers
    the network has.
    """

    units: tuple[Unit, ...]
    outputs: tuple[Mapping[str, TensorSpec], ...]
    config: dict[str, Any]
    parameters: int

    def tensors_of(self, places: range) -> dict[str, TensorSpec]:
        """Return the tensors that some of the layers become, by their names in the network."""
        return {
            self.units[place].name(leaf): spec
            for place in places
            for leaf, spec in self.outputs[place].items()
        }

    @property
    def bytes(self) -> int:
        """Bytes of all tensors that are going to be written."""
        return sum(spec.bytes for specs in self.outputs for spec in specs.values())

    @property
    def bits_per_weight(self) -> float:
        """Bits that a number of the network takes on the disk, scales included."""
        return 8 * self.bytes / max(1, self.parameters)


def make_plan(source: ModelSource, spec: ConvertSpec, adapter: Path | None) -> Plan:
    """Decide what becomes of each layer; reads the adapter and nothing of the model's weights.

    Raises:
        ModelError: the model cannot be written as a folder, is quantised already, has nothing that
            could be quantised so, or the adapter does not fit.
    """
    _check(source, spec)
    network, config = own_tree(source.network), dict(source.config)
    if spec.dequantize:
        network, config = dequantize_model(network), _without_quantization(config)
    if spec.dtype is not None:
        _note_dtype(config, DTYPES[spec.dtype][1])
    packings: dict[str, Packing] = {}
    if spec.quantize is not None:
        packings, config = _quantized(network, config, spec)
    fuses = {} if adapter is None else _fuses(source, adapter, dequantize=spec.dequantize)
    units = tuple(
        _unit(source, spec, path, leaves, fuses.get(path), packings.get(path))
        for path, leaves in _layers(source).items()
    )
    outputs = tuple(specs_of(unit.change(_placeholders(unit, source))) for unit in units)
    parameters = int(get_total_parameters(source.network))
    return Plan(units=units, outputs=outputs, config=config, parameters=parameters)


def _check(source: ModelSource, spec: ConvertSpec) -> None:
    if source.unwritable is not None:
        raise ModelError(
            f"{spec.model} cannot be written as an MLX folder: {source.unwritable}",
            remedy="convert it from the model's Hugging Face folder",
        )
    if next(_packings(source.network), None) is not None:
        check_not_again(spec, describe(source.config.get("quantization")))


def _packings(network: nn.Module) -> Iterator[tuple[str, Packing]]:
    for path, layer in network.named_modules():
        packing = packing_of(layer)
        if packing is not None:
            yield path, packing


def _without_quantization(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("quantization")}


def _note_dtype(config: dict[str, Any], name: str) -> None:
    """Say the new type where the configuration says the old one, and where loaders look for it."""
    known = [key for key in ("torch_dtype", "dtype") if key in config]
    for key in known or ["torch_dtype"]:
        config[key] = name


def _quantized(
    network: nn.Module, config: dict[str, Any], spec: ConvertSpec
) -> tuple[dict[str, Packing], dict[str, Any]]:
    """Let mlx-lm quantise a network of placeholders; return what it has decided."""
    how = str(spec.quantize)
    options = _options(how, spec.group_size, network, spec)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the bits per weight
        network, config = quantize_model(network, config, **options)
    packings = dict(_packings(network))
    if not packings:
        raise ModelError(
            f"{spec.model} has no layer that could be quantized in groups of "
            f"{options['group_size'] or _DEFAULT_GROUP}",
            field="group_size",
            remedy="choose a smaller --group-size",
        )
    return packings, config


def _options(
    how: str, group_size: int | None, network: nn.Module, spec: ConvertSpec
) -> dict[str, Any]:
    """Return mlx-lm's arguments for the value of ``--quantize``."""
    if how.isdigit():
        return {"group_size": group_size, "bits": int(how)}
    if not how.startswith(_MIXED):
        return {"group_size": None, "bits": None, "mode": how}
    size = group_size or _DEFAULT_GROUP
    try:
        predicate = mixed_quant_predicate_builder(how, network, size)
    except ValueError:
        raise ModelError(
            f"{spec.model} ({type(network).__module__.rpartition('.')[2]}) has no layers named as "
            f"{how} expects (down_proj), so it cannot tell which of them get more bits",
            field="quantize",
            remedy="choose one number of bits for all: --quantize 4",
        ) from None
    return {"group_size": size, "bits": int(how.split("_")[1]), "quant_predicate": predicate}


def _layers(source: ModelSource) -> dict[str, tuple[str, ...]]:
    """Return the names of the arrays of each layer that has some, in the network's order."""
    leaves: dict[str, tuple[str, ...]] = {}
    for name in source.tensors:
        path, _, leaf = name.rpartition(".")
        leaves[path] = (*leaves.get(path, ()), leaf)
    return leaves


def _fuses(source: ModelSource, adapter: Path, *, dequantize: bool) -> dict[str, Fuse]:
    """Return what merges the adapter into each layer that it changes."""
    adapted = own_tree(source.network)
    read = put_adapter(adapter, adapted, source.config)
    fuses: dict[str, Fuse] = {
        path: partial(fused, layer, dequantize=dequantize)
        for path, layer in adapted.named_modules()
        if "lora_a" in layer
    }
    trained: dict[str, dict[str, Callable[[], mx.array]]] = {}
    for name in read().keys() & source.tensors.keys():
        path, _, leaf = name.rpartition(".")
        trained.setdefault(path, {})[leaf] = partial(_one_of, read, name)
    return fuses | {path: partial(replaced, new) for path, new in trained.items()}


def _one_of(read: Callable[[], dict[str, mx.array]], name: str) -> mx.array:
    return read()[name]


def _unit(
    source: ModelSource,
    spec: ConvertSpec,
    path: str,
    leaves: tuple[str, ...],
    fuse: Fuse | None,
    pack: Packing | None,
) -> Unit:
    layer = source.network
    for part in path.split(".") if path else ():
        layer = layer[int(part)] if part.isdigit() else layer[part]
    packing = packing_of(layer)
    unpack = packing if spec.dequantize and fuse is None else None
    unit = Unit(path=path, leaves=leaves, unpack=unpack, fuse=fuse, pack=pack)
    if spec.dtype is None:
        return unit
    uncast = {leaf for leaf in leaves if not _casts(source, unit.name(leaf))}
    if packing is not None and not spec.dequantize:
        # Scales of fewer digits would change every weight of the layer.
        uncast |= {"scales", "biases"}
    return replace(unit, cast=DTYPES[spec.dtype][0], uncast=frozenset(uncast))


def _casts(source: ModelSource, name: str) -> bool:
    """Say whether an array may be cast; some networks keep a few in float32."""
    predicate = getattr(source.network, "cast_predicate", None)
    return predicate is None or bool(predicate(name))


def _placeholders(unit: Unit, source: ModelSource) -> Arrays:
    return {
        leaf: mx.zeros(tensor.shape, tensor.dtype)
        for leaf in unit.leaves
        for tensor in [source.tensors[unit.name(leaf)]]
    }
