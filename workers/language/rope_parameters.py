"""Rotary positions as transformers 5 writes them into ``config.json``.

The rule this module protects: a wavelength that a configuration names is never replaced by a
default. transformers 5 moved ``rope_theta``, ``rope_scaling`` and ``partial_rotary_factor`` into
``rope_parameters``, and networks with layers of two kinds have one entry for each; most of mlx-lm's
networks (0.32) look for the keys of before and, where they are missing, take their own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NEW = "rope_parameters"
_PLAIN = frozenset({"default", None})
_FULL, _SLIDING = "full_attention", "sliding_attention"


def earlier_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that a configuration lacks and its ``rope_parameters`` tell.

    That of a part, ``text_config``, is returned whole where it lacks some.
    """
    found = _keys(config)
    part = config.get("text_config")
    if isinstance(part, Mapping) and (missing := _keys(part)):
        found["text_config"] = {**part, **missing}
    return found


def _keys(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get(_NEW)
    if not isinstance(given, Mapping):
        return {}
    told = dict(_told(given.get(_FULL, given)))
    sliding = given.get(_SLIDING)
    if isinstance(sliding, Mapping) and "rope_theta" in sliding:
        told["rope_local_base_freq"] = sliding["rope_theta"]  # what Gemma 3 calls it
    return {name: value for name, value in told.items() if config.get(name) is None}


def _told(rope: Any) -> dict[str, Any]:
    """Return one kind of layers' entry in the keys of before."""
    if not isinstance(rope, Mapping):
        return {}
    told = {
        name: rope[name]
        for name in ("rope_theta", "partial_rotary_factor")
        if rope.get(name) is not None
    }
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in _PLAIN:
        scaling = {name: value for name, value in rope.items() if name not in told}
        told["rope_scaling"] = scaling | {"rope_type": kind, "type": kind}
    return told
