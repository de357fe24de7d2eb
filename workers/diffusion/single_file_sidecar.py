"""What a user writes beside a single-file checkpoint for what the file does not tell.

Beside ``NAME.safetensors`` a ``NAME.json`` may say, each key optional::

    {
      "prediction_type": "v_prediction",
      "scheduler": {"timestep_spacing": "trailing"},
      "unet": {"attention_head_dim": 4, "sample_size": 32},
      "vae": {"scaling_factor": 0.5},
      "text_encoder": {"num_attention_heads": 2},
      "text_encoder_2": {"num_attention_heads": 2}
    }

The objects hold settings of diffusers' and transformers' configuration files, which replace those
told from the tensors' shapes. The rule this module protects: a setting that nobody reads is an
error. Only a file with the keys of A1111's web interface, which keeps its notes under the same
name, is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.errors import ModelError

PREDICTIONS = ("epsilon", "v_prediction")

_OBJECTS = ("scheduler", "unet", "vae", "text_encoder", "text_encoder_2")
_WEB_UI = frozenset({"description", "notes", "sd version", "activation text", "preferred weight"})
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What the file beside the checkpoint says; nothing without one."""

    prediction_type: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def override(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``config`` with the sidecar's settings for the component ``name``."""
        return {**config, **self.settings.get(name, {})}


def read_sidecar(checkpoint: Path) -> Sidecar:
    """Read the sidecar of ``checkpoint``, if there is one.

    Raises:
        ModelError: it cannot be read, or says something that is not known.
    """
    path = checkpoint.with_suffix(".json")
    if not path.is_file():
        return Sidecar()
    data = _read(path)
    if _WEB_UI & data.keys():
        return Sidecar()
    _check(path, data)
    return Sidecar(
        prediction_type=data.get("prediction_type"),
        settings={name: data[name] for name in _OBJECTS if name in data},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name} cannot be read: {error}", remedy=_repair(path)) from None
    if not isinstance(data, dict):
        raise ModelError(f"{path.name} is not a JSON object", remedy=_repair(path))
    return data


def _check(path: Path, data: Mapping[str, Any]) -> None:
    unknown = sorted(data.keys() - {"prediction_type", *_OBJECTS})
    if unknown:
        known = ", ".join(("prediction_type", *_OBJECTS))
        raise ModelError(
            f"{path.name} has {unknown[0]!r}, which is unknown; known are {known}",
            remedy=_repair(path),
        )
    if data.get("prediction_type", PREDICTIONS[0]) not in PREDICTIONS:
        raise ModelError(
            f"{path.name} has prediction_type {data['prediction_type']!r}; "
            f"it is {' or '.join(PREDICTIONS)}",
            remedy=_repair(path),
        )
    for name in _OBJECTS:
        if not isinstance(data.get(name, {}), dict):
            raise ModelError(f"{path.name}: {name} is not an object", remedy=_repair(path))


def _repair(path: Path) -> str:
    return f"correct {path.name}, or remove it to use what the checkpoint itself tells"
