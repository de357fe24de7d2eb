"""``params.json``: the sizes of a network as Meta and Mistral write them.

The rule this module protects: a value is taken as the publisher's code takes it, or refused; what
would change the computation and has no place in mlx-lm's llama is never ignored. Imports no MLX.

Sources: ``ModelArgs`` of Meta's llama repository and of mistral-inference. Mistral 7B v0.1 gives a
``sliding_window`` of 4096 tokens; as in mlx-lm, attention goes beyond it. MLX's examples of 2023
and 2024 wrote the same names into ``config.json``, with ``quantization`` where they had quantised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.errors import ModelError

_HF = "use the model's Hugging Face or MLX folder"
# What makes another network than llama's: how messages call it.
_OTHERS = {
    "moe": "a mixture of experts",
    "yarn": "rotary positions scaled by YaRN",
    "quantization_args": "quantised weights",
    "vision_encoder": "an encoder of images",
}
# Llama 3.1's scaling of rotary positions (apply_scaling in Meta's llama-models). Meta's code knows
# one factor, 8; the published configurations of Llama 3.2's models, which are narrower, say 32. So
# the factor is known for the widths of 3.1 and 3.3 alone.
_SCALED_WIDTHS = frozenset({4096, 8192, 16384})
_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclass(frozen=True, kw_only=True)
class Params:
    """The sizes of a network; ``None`` where the weights' shapes say it.

    ``rope_scaling``: as in a Hugging Face configuration.
    """

    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden_dim: int | None
    vocab_size: int | None
    norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None


def read_settings(file: Path) -> dict[str, Any]:
    """Read a ``params.json`` or ``config.json`` as an object.

    Raises:
        ModelError: it is missing or malformed.
    """
    name = f"{file.parent.name}/{file.name}"
    try:
        settings = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name} cannot be read: {error}", remedy="download it again") from None
    if not isinstance(settings, dict):
        raise _wrong(name, f"it is {settings!r}, and not an object of names and values")
    return settings


def to_params(name: str, settings: Mapping[str, Any]) -> Params:
    """Return the sizes in ``settings``, which messages call ``name``.

    Raises:
        ModelError: they are missing, malformed, of another network, or contradict each other.
    """
    for key, what in _OTHERS.items():
        if settings.get(key):
            raise ModelError(f"{name} asks for {what} ({key}), which is not supported", remedy=_HF)
    return _checked(name, _Values(name, settings).params())


class _Values:
    """The values of a params.json, each checked when it is asked for."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self._name = name
        self._settings = settings

    def params(self) -> Params:
        """Return all of them; defaults as in the publishers' code."""
        dim, heads = self._size("dim"), self._size("n_heads")
        unknown_vocabulary = self._settings.get("vocab_size", -1) == -1
        return Params(
            dim=dim,
            layers=self._size("n_layers"),
            heads=heads,
            kv_heads=self._optional("n_kv_heads") or heads,
            head_dim=self._optional("head_dim") or dim // heads,
            hidden_dim=self._optional("hidden_dim"),
            vocab_size=None if unknown_vocabulary else self._size("vocab_size"),
            norm_eps=self._number("norm_eps", 1e-5),
            rope_theta=self._number("rope_theta", 10_000.0),
            rope_scaling=self._scaling(dim),
        )

    def _optional(self, key: str) -> int | None:
        return None if self._settings.get(key) is None else self._size(key)

    def _size(self, key: str) -> int:
        value = self._settings.get(key)
        if type(value) is not int or value < 1:
            said = f"{key} is {value!r}" if key in self._settings else f"{key} is missing"
            raise _wrong(self._name, f"{said}, and has to be a whole number above 0")
        return value

    def _number(self, key: str, default: float) -> float:
        value = self._settings.get(key)
        if value is None:
            return default
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise _wrong(self._name, f"{key} is {value!r}, and has to be a number above 0")
        return float(value)

    def _scaling(self, dim: int) -> Mapping[str, Any] | None:
        if not self._settings.get("use_scaled_rope"):
            return None
        if dim not in _SCALED_WIDTHS:
            raise ModelError(
                f"{self._name} asks for scaled rotary positions (use_scaled_rope) and does not say "
                f"by which factor; it is known for Llama 3.1 and 3.3, not for a width of {dim}",
                remedy=_HF,
            )
        return _SCALING


def _checked(name: str, params: Params) -> Params:
    if params.heads % params.kv_heads:
        raise _wrong(name, f"n_heads {params.heads} is no multiple of n_kv_heads {params.kv_heads}")
    if params.head_dim % 2 or params.head_dim < 2:
        raise _wrong(name, f"heads of {params.head_dim} cannot be rotated in pairs")
    return params


def _wrong(name: str, reason: str) -> ModelError:
    file = name.rpartition("/")[2]
    return ModelError(f"{name} is wrong: {reason}", remedy=f"use the model's own {file}")
