"""An opened GGUF file: what it says of itself, with the settings of its own architecture.

The rule this module protects: a setting is a number where a number is meant, and a missing one is
named; only the tensors' numbers stay unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED
from workers.language.headers import TensorInfo, read_gguf_header

FOLDER = "use the model's Hugging Face or MLX folder"


@dataclass(frozen=True, kw_only=True)
class GGUFFile:
    """``metadata`` with its arrays, and the ``tensors`` by llama.cpp's names."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @property
    def name(self) -> str:
        """What messages call the file."""
        return self.path.name

    @property
    def architecture(self) -> str:
        """The architecture, whose name begins the keys of its settings."""
        return str(self.metadata.get("general.architecture"))

    def setting(self, key: str, default: Any = None) -> Any:
        """Return a setting of the architecture, ``default`` where the file says nothing."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: float | None = None) -> Any:
        """Return a setting that is one number above zero.

        Raises:
            ModelError: it is missing and there is no default, or is something else.
        """
        value = self.setting(key, default)
        if value is None:
            raise ModelError(
                f"{self.name} is incomplete: its metadata has no {self.architecture}.{key}",
                remedy="download the file again",
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ModelError(
                f"{self.name} has {self.architecture}.{key} = {_shown(value)}, "
                "where one number above zero can be read",
                remedy=FOLDER,
            )
        return value

    def tensor(self, name: str) -> TensorInfo:
        """Return what is declared of a tensor.

        Raises:
            ModelError: there is none of that name.
        """
        if name not in self.tensors:
            raise ModelError(f"{self.name} is incomplete: it has no tensor {name}", remedy=DAMAGED)
        return self.tensors[name]


def open_file(path: Path) -> GGUFFile:
    """Read and check a GGUF file's header.

    Raises:
        ModelError: it is no GGUF file, a damaged one, or one of several that make a model.
    """
    header = read_gguf_header(path, arrays=True)
    parts = header.metadata.get("split.count", 1)
    if parts > 1:
        raise ModelError(
            f"{path.name} is one of the {parts} files of its model",
            remedy="merge them with llama.cpp's llama-gguf-split --merge",
        )
    return GGUFFile(
        path=path,
        metadata=header.metadata,
        tensors={tensor.name: tensor for tensor in header.tensors},
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
