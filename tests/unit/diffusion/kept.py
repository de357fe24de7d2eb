"""The references that ``python -m tests.references.make_networks`` wrote, and comparing with them.

Kept arrays are PyTorch's (N, C, H, W); what MLX gives is (N, H, W, C).
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.unit.diffusion import tiny
from workers.diffusion.components import Component

PLACE = Path(__file__).with_name("references")


@cache
def networks() -> dict[str, Any]:
    """Return ``config`` and ``parameters`` (shapes by name) of every network, by KIND/NAME."""
    return dict(_json("networks.json.gz"))


def names(kind: str) -> list[str]:
    """Return the names of the networks of a kind: unet, vae or clip."""
    return [name.removeprefix(f"{kind}/") for name in networks() if name.startswith(f"{kind}/")]


def shapes() -> dict[str, Any]:
    """Return the parameters' shapes of every network."""
    return {name: one["parameters"] for name, one in networks().items()}


@cache
def tokens() -> dict[str, Any]:
    """Return the texts and their token numbers."""
    return dict(_json("tokens.json.gz"))


@cache
def answers(kind: str) -> dict[str, tiny.Array]:
    """Return every answer of ``unet``, ``vae``, ``clip`` or ``pipelines`` by its key."""
    with np.load(PLACE / f"{kind}.npz") as file:
        return {key: file[key] for key in file.files}


def component(network: str, **changed: Any) -> Component:
    """Return a network with its drawn weights; ``changed`` replaces settings."""
    one = networks()[network]
    drawn = tiny.weights(network, one["parameters"])
    return Component(
        config=one["config"] | changed,
        weights={name: mx.array(array) for name, array in drawn.items()},
        source=network,
    )


def channels_last(array: tiny.Array) -> mx.array:
    """Return PyTorch's (N, C, H, W) as MLX's (N, H, W, C)."""
    return mx.array(np.ascontiguousarray(array.transpose(0, 2, 3, 1)))


def channels_first(array: mx.array) -> tiny.Array:
    """Return MLX's (N, H, W, C) as PyTorch's (N, C, H, W), float32."""
    return np.asarray(array.astype(mx.float32)).transpose(0, 3, 1, 2)


def deviation(found: tiny.Array, kept: tiny.Array) -> float:
    """Return the largest absolute difference as a share of the reference's largest value."""
    assert found.shape == kept.shape
    return float(np.abs(found - kept).max() / np.abs(kept).max())


def _json(name: str) -> Any:
    return json.loads(gzip.decompress((PLACE / name).read_bytes()))
