"""What lies beside the weights in a converted model's folder.

The rule this module protects: tokenizer files that are there are copied as they are, and one that
was built here (of a SentencePiece model alone, or of GGUF's metadata) is written as the
``tokenizer.json`` that every loader reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import save_config

from daemon.durable import sync_folder
from workers.failures import disk_errors
from workers.files import write_bytes, write_json
from workers.language.conversion.plan import Plan
from workers.language.conversion.shards import Shard
from workers.language.formats import Format, ModelFiles
from workers.language.sentencepiece_folder import FILE as SENTENCEPIECE

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
# What a converted model was made from; studioq models show reads it.
PROVENANCE = "conversion.json"

# A tokenizer is complete with one of these.
_WHOLE = ("tokenizer.json", "vocab.json", "vocab.txt", "tiktoken.model")
_TOKENIZER_FILES = (
    *_WHOLE,
    SENTENCEPIECE,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_GENERATION = "generation_config.json"


def write_folder(
    folder: Path,
    files: ModelFiles,
    tokenizer: TokenizerWrapper,
    plan: Plan,
    shards: Iterable[Shard],
) -> None:
    """Write everything but the weights into ``folder``, synced.

    Raises:
        DiskFullError: the disk is full.
    """
    with disk_errors(folder / CONFIG):
        # It drops keys of what it is given.
        save_config(dict(plan.config), folder / CONFIG)
        _write_tokenizer(folder, files, tokenizer)
    write_json(folder / INDEX, _index(plan, shards))
    sync_folder(folder)


def _index(plan: Plan, shards: Iterable[Shard]) -> dict[str, Any]:
    """Return which file each tensor is in, as Hugging Face's loaders and mlx-lm read it."""
    places = {name: shard.name for shard in shards for name in shard.tensors}
    sizes = {"total_size": plan.bytes, "total_parameters": plan.parameters}
    return {"metadata": sizes, "weight_map": places}


def _write_tokenizer(folder: Path, files: ModelFiles, tokenizer: TokenizerWrapper) -> None:
    source = files.path if files.path.is_dir() else files.path.parent
    as_is = files.format is not Format.GGUF and any((source / name).is_file() for name in _WHOLE)
    if not as_is:
        tokenizer.save_pretrained(str(folder))
    names = _TOKENIZER_FILES if as_is else (SENTENCEPIECE,)
    for name in (*names, _GENERATION):
        if (source / name).is_file():
            write_bytes(folder / name, (source / name).read_bytes())


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return what a converted model's folder says it was made from, nothing if it does not."""
    try:
        found = json.loads((folder / PROVENANCE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
