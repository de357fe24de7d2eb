"""What a run was made with: model, packages, device.

The rule this module protects: whoever reads the ledger later can tell whether two runs could have
given the same numbers.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Protocol

from daemon.adapter_config import CONFIG
from workers.files import sha256_of
from workers.language.adapters import WEIGHTS
from workers.memory import device_kind, device_name

_PACKAGES = ("studioq", "mlx", "mlx-lm", "transformers", "tokenizers", "numpy")

Fact = str | int | float | bool


class Identified(Protocol):
    """A loaded model that can be told from others."""

    @property
    def fingerprint(self) -> str:
        """The SHA-256 that ``workers.language.formats.fingerprint`` describes."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes of its weights."""
        ...


def provenance(model: Identified, adapter: Path | None = None) -> Mapping[str, Fact]:
    """Return the facts of a run with ``model`` and, where one was given, the adapter's folder.

    ``model_fingerprint`` is described in ``workers.language.formats.fingerprint``;
    ``adapter_sha256`` is the hash of the adapter's weights file.
    """
    facts: dict[str, Fact] = {
        "model_fingerprint": model.fingerprint,
        "model_bytes": model.bytes,
        "device": device_name(),
        "device_kind": device_kind(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    facts.update({f"version_{name}": version for name, version in _versions().items()})
    if adapter is not None:
        facts["adapter_sha256"] = sha256_of(adapter / WEIGHTS)
        if (adapter / CONFIG).exists():
            facts["adapter_config_sha256"] = sha256_of(adapter / CONFIG)
    return facts


def _versions() -> dict[str, str]:
    """Return the version of each package that computes."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
