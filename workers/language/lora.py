"""What is trained: adapters put into a network, or layers of it unfrozen, and how they are named.

The rule this module protects: the network trained here is the network that any mlx-lm rebuilds from
``adapter_config.json`` and ``adapters.safetensors``. The model given is the caller's own module
tree; its classes are left as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import get_total_parameters

from daemon.errors import ModelError, SpecRefusedError
from daemon.specs import TrainSpec

Arrays = dict[str, mx.array]

_LINEAR = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
_QUANTIZED = (nn.QuantizedLinear, nn.QuantizedEmbedding, QuantizedSwitchLinear)
_SIXTEEN_BITS = (mx.float16, mx.bfloat16)


def prepare(model: Any, spec: TrainSpec) -> dict[str, Any]:
    """Freeze ``model`` but for what the spec trains; return its ``adapter_config.json``.

    LoRA and DoRA matrices are drawn from MLX's global random state, which the caller sets. Fully
    trained layers become float32: in 16 bits a small update is lost in rounding, and Adam's
    epsilon is zero.

    Raises:
        SpecRefusedError: ``keys`` names no linear layer of the model.
        ModelError: the model is quantised and was to be trained in full.
    """
    layers = trained_layers(model, spec)
    model.freeze()
    parameters = None if spec.fine_tune_type == "full" else _parameters(layers, spec)
    if parameters is None:
        _unfreeze(layers)
    else:
        linear_to_lora_layers(
            model, len(layers), parameters, use_dora=spec.fine_tune_type == "dora"
        )
    return _config(spec, len(layers), parameters)


def trained_layers(model: Any, spec: TrainSpec) -> list[nn.Module]:
    """Return the last layers that the spec trains: all of them if the model has no more."""
    layers = list(model.layers)
    return layers if spec.num_layers == "all" else layers[-spec.num_layers :]


def trainable(model: nn.Module) -> Arrays:
    """Return what is trained, by the name it has in ``adapters.safetensors``."""
    return dict(tree_flatten(model.trainable_parameters()))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many numbers the model has in all, and how many of them are trained."""
    return int(get_total_parameters(model)), sum(array.size for array in trainable(model).values())


def is_finite(arrays: Mapping[str, mx.array]) -> bool:
    """Say whether no number is NaN or infinite."""
    return all(bool(flag) for flag in mx.stack([mx.isfinite(a).all() for a in arrays.values()]))


def start_from(model: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
    """Load the weights of another job's adapter in ``folder`` as the starting point.

    ``config`` is this job's own adapter configuration.

    Raises:
        ModelError: the adapter is of another type, scale, rank, or choice of layers.
    """
    _check_settings(config, _read_config(folder / "adapter_config.json"))
    weights = load_arrays(folder / "adapters.safetensors")
    _check_shapes(trainable(model), weights)
    model.load_weights(list(weights.items()), strict=False)


def load_arrays(path: Path) -> Arrays:
    """Read a safetensors file; a damaged one is a ModelError."""
    try:
        arrays: Any = mx.load(str(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}") from error
    return dict(arrays)


@contextmanager
def grad_checkpoint(layers: list[nn.Module], *, on: bool) -> Iterator[None]:
    """Let ``layers`` recompute their activations in the backward pass, inside the block only.

    Each layer's class is exchanged for a subclass of it, so other models keep theirs and nothing
    nests.
    """
    plain = [type(layer) for layer in layers]
    try:
        if on:
            for layer in layers:
                layer.__class__ = _recomputing(type(layer))
        yield
    finally:
        for layer, cls in zip(layers, plain, strict=True):
            layer.__class__ = cls


def _recomputing(cls: type[nn.Module]) -> type[nn.Module]:
    def call(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        def forward(parameters: Any, *args: Any) -> Any:
            layer.update(parameters)
            return cls.__call__(layer, *args, **kwargs)

        return mx.checkpoint(forward)(layer.trainable_parameters(), *args)

    return type(f"Recomputing{cls.__name__}", (cls,), {"__call__": call})


def _parameters(layers: list[nn.Module], spec: TrainSpec) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "rank": spec.rank,
        "scale": spec.scale,
        "dropout": spec.dropout,
    }
    if spec.keys is not None:
        parameters["keys"] = _full_keys(layers, spec.keys)
    return parameters


def _full_keys(layers: list[nn.Module], keys: list[str]) -> list[str]:
    """Return the full path inside a layer for every given name, whole or final part of a path."""
    known = {
        path
        for layer in layers
        for path, module in layer.named_modules()
        if isinstance(module, _LINEAR) or hasattr(module, "to_lora")
    }
    found = {key: {path for path in known if f".{path}".endswith(f".{key}")} for key in keys}
    for key, paths in found.items():
        if not paths:
            raise SpecRefusedError(
                f"keys: the model has no linear layer {key!r}",
                field="keys",
                remedy=f"one or more of: {', '.join(sorted(known))}",
            )
    return sorted(set().union(*found.values()))


def _unfreeze(layers: list[nn.Module]) -> None:
    for layer in layers:
        if any(isinstance(module, _QUANTIZED) for module in layer.modules()):
            raise ModelError(
                "a quantised model cannot be trained in full: its weights have no gradient",
                remedy="use --fine-tune-type lora, or the unquantised model",
            )
        layer.unfreeze()
        layer.update(tree_map(_float32, layer.trainable_parameters()))


def _float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if array.dtype in _SIXTEEN_BITS else array


def _config(spec: TrainSpec, layers: int, parameters: dict[str, Any] | None) -> dict[str, Any]:
    """Return the configuration in mlx-lm's words."""
    return {
        "fine_tune_type": spec.fine_tune_type,
        "num_layers": layers,
        "lora_parameters": parameters,
        "model": spec.model,
        "seed": spec.seed,
        "iters": spec.iters,
        "batch_size": spec.batch_size,
        "learning_rate": spec.learning_rate,
        "optimizer": spec.optimizer,
        "grad_accumulation_steps": spec.grad_accumulation,
        "max_seq_length": spec.max_seq_length,
        "mask_prompt": spec.mask_prompt,
    }


def _read_config(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"the adapter's {path.name} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise ModelError(f"the adapter's {path.name} is not a JSON object")
    return given


def _check_settings(config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    theirs, ours = given.get("lora_parameters") or {}, config["lora_parameters"] or {}
    pairs = [
        ("fine-tune-type", given.get("fine_tune_type", "lora"), config["fine_tune_type"]),
        ("num-layers", _all_layers(given, config), config["num_layers"]),
        *((name, theirs.get(name), ours.get(name)) for name in ("rank", "scale") if ours),
    ]
    for option, there, here in pairs:
        if there != here:
            raise ModelError(
                f"the adapter to start from has {option} {there}, this job {here}",
                remedy=f"give --{option} {there}, as the adapter has",
            )


def _all_layers(given: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """Return the adapter's number of layers; mlx-lm writes -1 or 0 for all, or leaves it out."""
    number = given.get("num_layers")
    return number if isinstance(number, int) and number > 0 else config["num_layers"]


def _check_shapes(ours: Mapping[str, mx.array], theirs: Mapping[str, mx.array]) -> None:
    odd = sorted(ours.keys() ^ theirs.keys())
    if odd:
        where = "is not in the adapter" if odd[0] in ours else "is not trained by this job"
        raise ModelError(
            f"the adapter to start from does not fit: {odd[0]} {where} ({len(odd)} differ in all)",
            remedy="use the model, --keys and --num-layers that the adapter was trained with",
        )
    for name, array in ours.items():
        if array.shape != theirs[name].shape:
            raise ModelError(
                f"the adapter to start from does not fit: {name} has shape "
                f"{tuple(theirs[name].shape)}, the model needs {tuple(array.shape)}",
                remedy="use the model that the adapter was trained with",
            )
