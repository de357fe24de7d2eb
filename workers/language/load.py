"""Loading a language model from its files, in the form that is fast on this device.

The rule this module protects: a model is loaded from local files alone, with no code of the model's
author run, and whatever is wrong with it becomes one ``ModelError`` that says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm import utils as mlx_lm_utils
from mlx_lm.tokenizer_utils import TokenizerWrapper

from daemon.errors import ModelError, StudioqError
from workers.failures import is_out_of_memory, memory_errors
from workers.language import formats
from workers.language.formats import Format, ModelFiles
from workers.language.gguf import open_gguf
from workers.language.originals.network import open_release
from workers.language.rope_parameters import earlier_keys
from workers.language.sentencepiece_folder import FILE as SENTENCEPIECE
from workers.language.sentencepiece_folder import (
    check_tokens_have_rows,
    check_vocabulary_size,
    load_sentencepiece_folder,
)
from workers.language.source import ModelSource, fill, source_of
from workers.language.tiktoken_folder import is_tiktoken, load_tiktoken_folder
from workers.memory import on_gpu, preserved_random_state

_TOKENIZER_FILES = (
    "tokenizer.json",
    SENTENCEPIECE,
    "vocab.json",
    "vocab.txt",
    "tokenizer_config.json",
)


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A loaded model. ``model`` is the caller's own module tree; ``bytes`` are its weights' size.

    ``fingerprint`` is the SHA-256 of ``workers.language.formats.fingerprint``.
    """

    name: str
    model: nn.Module
    tokenizer: TokenizerWrapper
    config: dict[str, Any]
    fingerprint: str
    bytes: int


def load_language_model(path: Path) -> LanguageModel:
    """Load the model at ``path``, in any format of ``workers.language.formats``.

    On the CPU all weights become float32, because MLX has fast CPU kernels for nothing else; on a
    GPU they stay as they are stored. The global random state is left as it was.

    Raises:
        ModelError: a file is missing, damaged, or of a kind that cannot be read.
        OutOfMemoryError: the weights do not fit.
    """
    files = formats.find_model_files(path)
    identity = formats.fingerprint(files)
    with memory_errors(f"loading {files.name}"), open_source(files) as source:
        model = fill(source, _as_is if on_gpu() else _expanded)
        if not on_gpu():
            to_float32(model)
        model.eval()
        mx.eval(model.parameters())
    return LanguageModel(
        name=path.name,
        model=model,
        tokenizer=source.tokenizer,
        config=source.config,
        fingerprint=identity,
        bytes=parameter_bytes(model),
    )


@contextmanager
def open_source(files: ModelFiles) -> Iterator[ModelSource]:
    """Open a model without reading its weights; what goes wrong inside is a ``ModelError``.

    The global random state is left as it was.
    """
    with preserved_random_state(), _model_errors(files):
        yield _opened(files)


def _opened(files: ModelFiles) -> ModelSource:
    if files.format is Format.GGUF:
        return open_gguf(files.path)
    if files.format is Format.FOLDER:
        return source_of(*_load_folder(files))
    return _opened_release(files)


def _opened_release(files: ModelFiles) -> ModelSource:
    """Open a publisher's release or npz weights, with the tokenizer that lies beside them."""
    _check_tokenizer(files.path)
    network, config, tensors = open_release(files)
    tokenizer = _load_tokenizer(files.path, network, config.get("eos_token_id"))
    return ModelSource(network=network, config=config, tokenizer=tokenizer, tensors=tensors)


def _as_is(array: mx.array) -> mx.array:
    return array


def _expanded(array: mx.array) -> mx.array:
    """Return a floating-point array in float32; packed words stay as they are."""
    return array.astype(mx.float32) if mx.issubdtype(array.dtype, mx.floating) else array


def _load_folder(files: ModelFiles) -> tuple[nn.Module, dict[str, Any], TokenizerWrapper]:
    """Load a folder as mlx-lm does, with remote code and network off."""
    folder = files.path
    settings = _read_config(folder)
    formats.check_layers(files, settings)
    _check_tokenizer(folder)
    model, config = mlx_lm_utils.load_model(
        folder, lazy=True, trust_remote_code=False, model_config=earlier_keys(settings)
    )
    return model, config, _load_tokenizer(folder, model, config.get("eos_token_id"))


def _load_tokenizer(folder: Path, model: nn.Module, ends: Any) -> TokenizerWrapper:
    """Load ``tokenizer.json`` or the like; a ``tokenizer.model`` where there is nothing else."""
    if _has_tokenizer_model_alone(folder):
        load = load_tiktoken_folder if is_tiktoken(folder) else load_sentencepiece_folder
        tokenizer = load(folder, ends)
        check_vocabulary_size(folder.name, tokenizer, model)
        return tokenizer
    options = {"trust_remote_code": False, "local_files_only": True}
    loaded: TokenizerWrapper = mlx_lm_utils.load_tokenizer(folder, options, eos_token_ids=ends)
    check_tokens_have_rows(folder.name, loaded, model)
    return loaded


def _has_tokenizer_model_alone(folder: Path) -> bool:
    return (folder / SENTENCEPIECE).is_file() and not (folder / "tokenizer.json").is_file()


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder.name}/config.json cannot be read: {error}", remedy="download the model again"
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ModelError(
            f"{folder.name}/config.json names no model_type, so its architecture is unknown",
            remedy="use the model's own config.json",
        )
    return config


def _check_tokenizer(folder: Path) -> None:
    if any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return
    other = next(folder.glob("tokenizer.model.v*"), folder / "tekken.json")
    if not other.is_file():
        raise ModelError(
            f"{folder.name} has no tokenizer: neither tokenizer.json nor {SENTENCEPIECE} is in it",
            remedy="copy tokenizer.json and tokenizer_config.json into the folder",
        )
    if other.name.startswith(SENTENCEPIECE):
        remedy = f"rename it to {SENTENCEPIECE}, or copy the model's tokenizer.json into the folder"
    else:
        remedy = (
            "copy tokenizer.json and tokenizer_config.json from the model's Hugging Face folder"
        )
    raise ModelError(
        f"{folder.name} has its tokenizer in {other.name} alone, which is not read", remedy=remedy
    )


@contextmanager
def _model_errors(files: ModelFiles) -> Iterator[None]:
    """Raise what mlx-lm and transformers say about a broken model as ``ModelError``."""
    try:
        yield
    except (StudioqError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _unusable(files, error) from None


def _unusable(files: ModelFiles, error: Exception) -> ModelError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"{reason} is missing"
    shown = reason if len(reason) <= 300 else reason[:299] + "…"
    return ModelError(
        f"model {files.name} cannot be loaded: {shown}",
        remedy="check that the folder holds a complete model of an architecture that mlx-lm knows",
    )


def to_float32(model: nn.Module) -> None:
    """Cast every 16-bit array of ``model`` to float32 and dequantise every layer, lazily.

    In this order, because the CPU multiplies scales of 16 bits slowly.
    """
    model.set_dtype(mx.float32)
    mlx_lm_utils.dequantize_model(model)
    model.set_dtype(mx.float32)  # the mx and nv formats dequantise to bfloat16


def parameter_bytes(model: nn.Module) -> int:
    """Return the size of all arrays of ``model``, bytes."""
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))
