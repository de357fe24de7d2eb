"""Which networks mlx-lm has, told from its files.

The rule this module protects: mlx-lm is looked at and never imported, since MLX belongs to the
engine alone; and where its files do not say it, no model is refused.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from daemon.errors import ModelError

# general.architecture of the GGUF files that the engine reads (workers/language/gguf).
GGUF_ARCHITECTURES = (
    "llama",
    "mistral3",
    "qwen2",
    "qwen3",
    "phi2",
    "phi3",
    "gemma",
    "gemma2",
    "gemma3",
)

_OTHER_NAMES = "MODEL_REMAPPING"


def check_architecture(model: str, architecture: str | None) -> None:
    """Refuse a network that mlx-lm does not have.

    ``architecture`` is the ``model_type`` of a ``config.json``.

    Raises:
        ModelError: names it, or says that none is named.
    """
    if architecture is None:
        raise ModelError(
            f"{model}: config.json names no model_type, so its architecture is unknown",
            remedy="use the model's own config.json",
        )
    known = known_architectures()
    if known and architecture not in known:
        raise ModelError(
            f"{model} is a network of the type {architecture}, which mlx-lm does not have",
            remedy="use a language model of another type; a newer mlx-lm may know this one",
        )


def check_gguf_architecture(model: str, architecture: str, metadata: Mapping[str, Any]) -> None:
    """Refuse a GGUF file of a network that the engine does not read.

    Raises:
        ModelError: names the architecture, and those that are read.
    """
    if architecture not in GGUF_ARCHITECTURES:
        raise ModelError(
            f"{model} is of the architecture {architecture!r}, which is not supported as GGUF",
            remedy=f"GGUF files of the architectures {', '.join(GGUF_ARCHITECTURES)} can be read; "
            "other models as Hugging Face or MLX folders",
        )
    if experts := metadata.get(f"{architecture}.expert_count"):
        raise ModelError(
            f"{model} is a mixture of {experts} experts, which is not supported as GGUF",
            remedy="use the model's Hugging Face or MLX folder",
        )


@cache
def known_architectures() -> frozenset[str]:
    """Return the model types that mlx-lm has, none where they cannot be told."""
    found = importlib.util.find_spec("mlx_lm")
    folders = found.submodule_search_locations if found is not None else None
    if not folders:
        return frozenset()
    folder = Path(folders[0])
    modules = {file.stem for file in (folder / "models").glob("*.py")}
    modules |= {file.parent.name for file in (folder / "models").glob("*/__init__.py")}
    names = _other_names(folder / "utils.py")
    return frozenset(modules | names) if modules and names else frozenset()


def _other_names(module: Path) -> set[str]:
    """Return the types that mlx-lm maps to another's network."""
    try:
        statements = ast.parse(module.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return set()
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            names = {target.id for target in statement.targets if isinstance(target, ast.Name)}
            if _OTHER_NAMES in names:
                keys = statement.value.keys
                return {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    return set()
