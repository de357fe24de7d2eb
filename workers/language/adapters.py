"""Adapters: reading what somebody uploaded or trained, and putting it into a model of one's own.

The rule this module protects: nothing of an adapter is believed. Its configuration is bounded, and
every tensor's name and shape is compared with the model before one number is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from daemon.adapter_config import CONFIG, AdapterConfig
from daemon.adapter_files import WEIGHTS, Adapter, Form, read_adapter
from daemon.errors import ModelError, NonFiniteError
from daemon.peft_adapters import mlx_name
from workers.failures import memory_errors
from workers.language.load import LanguageModel
from workers.language.npz_adapters import first_arrays, npz_arrays
from workers.memory import preserved_random_state
from workers.models import own_tree

__all__ = ["WEIGHTS", "check_shapes", "load_adapter", "put_adapter", "read_adapter_config"]

_LEAVES = frozenset({"lora_a", "lora_b", "m"})
_OTHER_MODEL = "use the model that the adapter was trained with"


def load_adapter(folder: Path, base: LanguageModel) -> LanguageModel:
    """Return ``base`` with the adapter in ``folder`` applied; ``base`` itself is left as it is.

    The arrays of the base are shared, not copied. The global random state is left as it was.

    Raises:
        ModelError: a file is missing or damaged, a setting is out of bounds, or a tensor does not
            fit the model: names the first such tensor and both shapes.
        NonFiniteError: the adapter holds NaN or infinite numbers.
    """
    model = own_tree(base.model)
    put_adapter(folder, model, base.config)
    with memory_errors("loading the adapter"):
        model.eval()
        mx.eval(model.parameters())
    return replace(base, model=model)


def put_adapter(
    folder: Path, network: nn.Module, config: Mapping[str, Any]
) -> Callable[[], dict[str, mx.array]]:
    """Put the adapter in ``folder`` into ``network``; return what reads its arrays anew.

    ``config`` is the network's. The network's own arrays are not looked at, so they may be
    placeholders; those of the adapter are lazy. The global random state is left as it was.

    Raises:
        ModelError, NonFiniteError: as ``load_adapter``.
    """
    given = _declared(folder)
    read = partial(_arrays, folder, given, config)
    with preserved_random_state():
        expected = _prepare(network, given.config)
        # Layers that are left out stay as they are made, which changes nothing.
        check_shapes(given.shapes, expected, complete=given.complete)
        with memory_errors("loading the adapter"):
            _check_finite(read())
            network.load_weights(list(read().items()), strict=False)
    return read


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read and check what the adapter's files say of it.

    Raises:
        ModelError: a file is missing or damaged, or a value is out of bounds.
    """
    return _declared(folder).config


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


def _declared(folder: Path) -> Adapter:
    """Read the configuration and the header of the weights, in whichever form they are."""
    return read_adapter(folder / WEIGHTS, folder / CONFIG)


def _arrays(folder: Path, given: Adapter, config: Mapping[str, Any]) -> dict[str, mx.array]:
    """Return the tensors in mlx-lm's form; ``config`` is the network's."""
    found = npz_arrays(folder / WEIGHTS) if given.archive else _load(folder / WEIGHTS)
    match given.form:
        case Form.FIRST:
            return first_arrays(found, config)
        case Form.PEFT:
            return {mlx_name(name): array.T for name, array in found.items()}
        case Form.MLX:
            return found


def _load(path: Path) -> dict[str, mx.array]:
    """Read a safetensors file."""
    try:
        weights: Any = mx.load(str(path))
    except RuntimeError as error:
        raise ModelError(
            f"{path.name} cannot be read: {error}", remedy="upload the adapter again"
        ) from None
    return dict(weights)


def _check_finite(weights: dict[str, mx.array]) -> None:
    """Refuse numbers that are not finite; takes the arrays away one by one, to hold one alone."""
    while weights:
        name, array = weights.popitem()
        if not bool(mx.isfinite(array).all()):
            raise NonFiniteError(
                f"the adapter's {name} holds NaN or infinite numbers",
                remedy="use an earlier checkpoint of the training, or a lower learning rate",
            )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "()"


def _listed(names: Iterable[str]) -> str:
    """Name the first three of ``names`` and count the rest."""
    ordered = sorted(names)
    rest = len(ordered) - 3
    return ", ".join(ordered[:3]) + (f" and {rest} more" if rest > 0 else "")
