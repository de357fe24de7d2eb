"""Adapters: reading what somebody uploaded or trained, and putting it into a model of one's own.

The rule this module protects: nothing of an adapter is believed. Its configuration is bounded, and
every tensor's name and shape is compared with the model before one number is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from daemon.errors import ModelError, NonFiniteError
from workers.failures import memory_errors
from workers.language.headers import read_safetensors_header
from workers.language.load import LanguageModel
from workers.memory import preserved_random_state
from workers.models import own_tree

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"

# Bounds of an adapter's configuration, those of a training job's options (daemon.specs.TrainSpec).
_MAX_CONFIG = 2**20
_MAX_RANK = 4096
_MAX_LAYERS = 10_000
_MAX_SCALE = 1e4
_MAX_KEYS = 1000
_MAX_KEY = 200

_FLOATS = frozenset({"F32", "F16", "BF16"})
_LEAVES = frozenset({"lora_a", "lora_b", "m"})
_OTHER_MODEL = "use the model that the adapter was trained with"


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What ``adapter_config.json`` says, checked.

    ``num_layers``: how many of the last layers have the adapter, -1 for all. ``keys``: the paths of
    the adapted layers inside a block, None for every linear layer. ``model``: the name of the model
    it was trained with, where the file tells.
    """

    kind: Literal["lora", "dora", "full"]
    num_layers: int
    rank: int
    scale: float
    keys: tuple[str, ...] | None
    model: str | None


def load_adapter(folder: Path, base: LanguageModel) -> LanguageModel:
    """Return ``base`` with the adapter in ``folder`` applied; ``base`` itself is left as it is.

    The arrays of the base are shared, not copied. The global random state is left as it was.

    Raises:
        ModelError: a file is missing or damaged, a setting is out of bounds, or a tensor does not
            fit the model: names the first such tensor and both shapes.
        NonFiniteError: the adapter holds NaN or infinite numbers.
    """
    config = read_adapter_config(folder)
    given = _declared(folder)
    model = own_tree(base.model)
    with preserved_random_state():
        expected = _prepare(model, config)
        check_shapes(given, expected, complete=config.kind != "full")
        with memory_errors("loading the adapter"):
            model.load_weights(_read(folder), strict=False)
            model.eval()
            mx.eval(model.parameters())
    return replace(base, model=model)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read and check ``adapter_config.json``.

    Raises:
        ModelError: the file is missing, is not a JSON object, or a value is out of bounds.
    """
    data = _json(folder / CONFIG)
    kind = data.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora", "full"):
        raise _refused("fine_tune_type", kind, "one of lora, dora, full")
    layers = _whole("num_layers", data.get("num_layers", data.get("lora_layers")), -1, _MAX_LAYERS)
    parameters = data.get("lora_parameters") or {}
    if kind == "full":
        parameters = {"rank": 1, "scale": 1.0}
    if not isinstance(parameters, dict):
        raise _refused("lora_parameters", parameters, "an object with rank and scale")
    model = data.get("model")
    return AdapterConfig(
        kind=kind,
        num_layers=layers,
        rank=_whole("rank", parameters.get("rank"), 1, _MAX_RANK),
        scale=_scale(parameters.get("scale")),
        keys=_keys(parameters.get("keys")),
        model=model if isinstance(model, str) else None,
    )


def check_shapes(
    given: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    *,
    complete: bool,
) -> None:
    """Compare an adapter's tensors with what the model has room for.

    ``complete``: every expected tensor must be given; a fully trained part may be any part.

    Raises:
        ModelError: names the first tensor of another shape, or those missing or surplus.
    """
    for name in sorted(given.keys() & expected.keys()):
        if given[name] != expected[name]:
            raise ModelError(
                f"the adapter does not fit the model: {name} has the shape {_shape(given[name])}, "
                f"the model needs {_shape(expected[name])}",
                remedy=_OTHER_MODEL,
            )
    surplus = given.keys() - expected.keys()
    missing = expected.keys() - given.keys() if complete else set()
    if surplus or missing or not given:
        reasons = [
            text
            for text, names in (
                ("it has {} without a place in the model", surplus),
                ("it lacks {}", missing),
                ("it has no tensors", () if given else ("",)),
            )
            if names
            for text in [text.format(_listed(names))]
        ]
        raise ModelError(
            f"the adapter does not fit the model: {'; '.join(reasons)}", remedy=_OTHER_MODEL
        )


def _prepare(model: nn.Module, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Put empty adapter layers into ``model``; return name and shape of what they take."""
    if config.kind == "full":
        return {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}
    settings: dict[str, Any] = {"rank": config.rank, "scale": config.scale, "dropout": 0.0}
    if config.keys is not None:
        settings["keys"] = list(config.keys)
    try:
        linear_to_lora_layers(model, config.num_layers, settings, use_dora=config.kind == "dora")
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model cannot take a {config.kind} adapter: {error}", remedy=_OTHER_MODEL
        ) from None
    return {
        name: tuple(array.shape)
        for name, array in tree_flatten(model.parameters())
        if name.rpartition(".")[2] in _LEAVES
    }


def _declared(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in the adapter's file, from its header."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(
            f"the adapter has no {WEIGHTS}",
            remedy=f"an adapter is a folder with {WEIGHTS} and {CONFIG}",
        )
    header = read_safetensors_header(path)
    for tensor in header.tensors:
        if tensor.dtype not in _FLOATS:
            raise ModelError(
                f"the adapter's {tensor.name} is of the type {tensor.dtype}, not a float",
                remedy="use adapters as mlx-lm writes them",
            )
    return {tensor.name: tensor.shape for tensor in header.tensors}


def _read(folder: Path) -> list[tuple[str, mx.array]]:
    """Read the weights; every number must be finite."""
    try:
        weights: Any = mx.load(str(folder / WEIGHTS))
    except RuntimeError as error:
        raise ModelError(
            f"{WEIGHTS} cannot be read: {error}", remedy="upload the adapter again"
        ) from None
    for name, array in weights.items():
        if not bool(mx.isfinite(array).all()):
            raise NonFiniteError(
                f"the adapter's {name} holds NaN or infinite numbers",
                remedy="use an earlier checkpoint of the training, or a lower learning rate",
            )
    return list(weights.items())


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(
            f"the adapter has no {path.name}",
            remedy=f"an adapter is a folder with {WEIGHTS} and {CONFIG}",
        )
    if path.stat().st_size > _MAX_CONFIG:
        raise ModelError(
            f"{path.name} has {path.stat().st_size} bytes; at most {_MAX_CONFIG} are read",
            remedy="use the configuration that mlx-lm wrote beside the adapter",
        )
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path.name} is not JSON: {error}", remedy="use the file that mlx-lm wrote"
        ) from None
    if not isinstance(data, dict):
        raise ModelError(f"{path.name} is not an object", remedy="use the file that mlx-lm wrote")
    return data


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise _refused(name, value, f"a whole number from {least} to {most}")


def _scale(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and abs(value) <= _MAX_SCALE:
        return float(value)
    raise _refused("scale", value, f"a number from {-_MAX_SCALE:g} to {_MAX_SCALE:g}")


def _keys(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    listed = value if isinstance(value, list) and 0 < len(value) <= _MAX_KEYS else [None]
    if all(isinstance(key, str) and 0 < len(key) <= _MAX_KEY for key in listed):
        return tuple(listed)
    raise _refused("keys", value, f"a list of up to {_MAX_KEYS} names of layers")


def _refused(name: str, value: object, allowed: str) -> ModelError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "…"
    return ModelError(
        f"the adapter's {CONFIG} has {name} = {shown}; allowed is {allowed}",
        remedy="use the configuration that mlx-lm wrote beside the adapter",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "()"


def _listed(names: Iterable[str]) -> str:
    """Name the first three of ``names`` and count the rest."""
    ordered = sorted(names)
    rest = len(ordered) - 3
    return ", ".join(ordered[:3]) + (f" and {rest} more" if rest > 0 else "")
