"""Whether a configuration tells of more layers than the weights have.

The rule this module protects: a network is built for layers that are there. Twenty thousand layers
of a wrong configuration take gigabytes before the first weight is looked at; the names of the
tensors tell how many there can be. Asked by the daemon and, for what was not submitted, by the
engine. Imports no MLX.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from daemon.errors import ModelError

# What configurations call the number of layers, also for the text part of a model of several.
_KEYS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_PARTS = ("text_config", "llm_config")

# A layer's number in a tensor's name: ``model.layers.3.…``, and GPT-2's ``h.3.…``.
_NUMBER = re.compile(r"(?:^|\.)(?:layers?|blocks?|h)\.(\d{1,9})\.")


def check_layer_count(
    name: str, file: str, config: Mapping[str, Any], tensors: Collection[str]
) -> None:
    """Refuse a configuration with more layers than the names of ``tensors`` have room for.

    ``name`` is what messages call the model, and ``file`` its configuration. Weights may have more
    layers than the network takes.

    Raises:
        ModelError: names both numbers.
    """
    declared = max(_declared(config), default=0)
    found = max(_numbers(tensors), default=None)
    if found is None and declared > len(tensors):
        raise _too_many(name, file, declared, f"have {len(tensors)} tensors")
    if found is not None and declared > found + 1:
        raise _too_many(name, file, declared, f"have {found + 1}")


def _declared(config: Mapping[str, Any]) -> Iterator[int]:
    parts = (config, *(config.get(part) for part in _PARTS))
    for settings in parts:
        if isinstance(settings, Mapping):
            for key in _KEYS:
                if type(settings.get(key)) is int:
                    yield settings[key]


def _numbers(tensors: Iterable[str]) -> Iterator[int]:
    for tensor in tensors:
        for number in _NUMBER.findall(tensor):
            yield int(number)


def _too_many(name: str, file: str, declared: int, found: str) -> ModelError:
    shown = str(declared) if declared < 10**15 else "more than 10^15"
    return ModelError(
        f"{name} is wrong: {file} tells of {shown} layers, and the weights {found}",
        remedy=f"use the {file} that was published with the weights; if it is, a file of the "
        "weights may be missing",
    )
