"""What an adapter's ``adapter_config.json`` says, in mlx-lm's form, checked.

The rule this module protects: nothing of the file is believed. It is small, it is an object, and
every value is within the bounds of a training job's own options.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from daemon.errors import ModelError

CONFIG = "adapter_config.json"

# Those of a training job's options (daemon.specs.TrainSpec).
_MAX_CONFIG = 2**20
_MAX_RANK = 4096
_MAX_LAYERS = 10_000
_MAX_SCALE = 1e4
_MAX_KEYS = 1000
_MAX_KEY = 200


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


def read_object(path: Path, needed: str) -> dict[str, Any]:
    """Read the file at ``path`` as an object; ``needed`` says what an adapter consists of.

    Raises:
        ModelError: the file is missing, too large, or not a JSON object.
    """
    if not path.is_file():
        raise ModelError(f"the adapter has no {CONFIG}", remedy=needed)
    if path.stat().st_size > _MAX_CONFIG:
        raise ModelError(
            f"{CONFIG} has {path.stat().st_size} bytes; at most {_MAX_CONFIG} are read",
            remedy="use the configuration that was written beside the adapter",
        )
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{CONFIG} is not JSON: {error}", remedy="use the file that the training wrote"
        ) from None
    if not isinstance(data, dict):
        raise ModelError(
            f"{CONFIG} is not an object", remedy="use the file that the training wrote"
        )
    return data


def parse_config(data: dict[str, Any]) -> AdapterConfig:
    """Check what mlx-lm writes.

    Raises:
        ModelError: a value is out of bounds.
    """
    kind = data.get("fine_tune_type", "lora")
    if kind not in ("lora", "dora", "full"):
        raise refused("fine_tune_type", kind, "one of lora, dora, full")
    layers = whole("num_layers", data.get("num_layers", data.get("lora_layers")), -1, _MAX_LAYERS)
    parameters = data.get("lora_parameters") or {}
    if kind == "full":
        parameters = {"rank": 1, "scale": 1.0}
    if not isinstance(parameters, dict):
        raise refused("lora_parameters", parameters, "an object with rank and scale")
    return AdapterConfig(
        kind=kind,
        num_layers=layers,
        rank=rank(parameters.get("rank"), "rank"),
        scale=scale(parameters.get("scale"), "scale"),
        keys=_keys(parameters.get("keys")),
        model=text(data.get("model")),
    )


def rank(value: object, name: str) -> int:
    """Return a rank within bounds; ``name`` is the setting's name for messages."""
    return whole(name, value, 1, _MAX_RANK)


def scale(value: Any, name: str) -> float:
    """Return a scale within bounds; ``name`` is the setting's name for messages."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and abs(value) <= _MAX_SCALE:
        return float(value)
    raise refused(name, value, f"a number from {-_MAX_SCALE:g} to {_MAX_SCALE:g}")


def whole(name: str, value: object, least: int, most: int) -> int:
    """Return a whole number within bounds."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise refused(name, value, f"a whole number from {least} to {most}")


def text(value: object) -> str | None:
    """Return a text, None for anything else."""
    return value if isinstance(value, str) else None


def refused(name: str, value: object, allowed: str) -> ModelError:
    """Return the error for a setting that cannot be used."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "…"
    return ModelError(
        f"the adapter's {CONFIG} has {name} = {shown}; allowed is {allowed}",
        remedy="use the configuration that was written beside the adapter",
    )


def _keys(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    listed = value if isinstance(value, list) and 0 < len(value) <= _MAX_KEYS else [None]
    if all(isinstance(key, str) and 0 < len(key) <= _MAX_KEY for key in listed):
        return tuple(listed)
    raise refused("keys", value, f"a list of up to {_MAX_KEYS} names of layers")
