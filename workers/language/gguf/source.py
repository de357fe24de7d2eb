"""A GGUF file as a source of tensors for mlx-lm's network.

The rule this module protects: what the converter of llama.cpp has done to the weights of an
architecture is undone exactly once. It puts the two halves of each head's rows of q and k into
pairs for llama, and adds 1 to the norms of gemma.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from daemon.errors import ModelError
from workers.language.gguf import blocks
from workers.language.gguf.architectures import (
    Architecture,
    Config,
    architecture_of,
    configuration,
    head_size,
)
from workers.language.gguf.file import FOLDER, GGUFFile, open_file
from workers.language.gguf.network import build_network, place_tensors, quantise
from workers.language.gguf.positions import (
    FREQUENCY_FACTORS,
    LONG_FACTORS,
    SHORT_FACTORS,
    llama3_scaling,
    scale_frequencies,
)
from workers.language.headers import TensorInfo
from workers.language.source import ModelSource, SourceTensor
from workers.language.tokenizer import gguf_tokenizer

_DTYPES = {"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}
_PARTS = {
    "weight": blocks.read_words,
    "scales": blocks.read_scales,
    "biases": blocks.read_biases,
}
_USED = {LONG_FACTORS: "phi3", SHORT_FACTORS: "phi3", FREQUENCY_FACTORS: "llama"}


def open_gguf(path: Path) -> ModelSource:
    """Open a GGUF file; quantised tensors stay quantised where MLX can hold them as they are.

    Raises:
        ModelError: an architecture, tensor or tokenizer that is not supported, or a damaged file.
    """
    file = open_file(path)
    architecture = architecture_of(file)
    config = configuration(file, architecture)
    tokenizer = gguf_tokenizer(file.metadata)
    _check_vocabulary(file, config)
    config["eos_token_id"] = sorted(tokenizer.eos_token_ids)
    factors = _frequency_factors(file, architecture, config)
    network = build_network(config)
    used = {name for name, model in _USED.items() if model == architecture.model_type}
    placed = place_tensors(file, architecture.layer_names, network, used)
    config |= quantise(network, placed)
    if factors is not None:
        scale_frequencies(network, factors, head_size(file), config["rope_theta"])
    tensors = dict(_tensors(file, architecture, config, network, placed))
    network.update(tree_unflatten([(name, _placeholder(each)) for name, each in tensors.items()]))
    return ModelSource(
        network=network,
        config=config,
        tokenizer=tokenizer,
        tensors=tensors,
        unwritable=None if factors is None else _UNWRITABLE,
    )


_UNWRITABLE = (
    f"its {FREQUENCY_FACTORS} scales positions otherwise than any published model does, "
    "and config.json has no word for that"
)


def _check_vocabulary(file: GGUFFile, config: Config) -> None:
    """Refuse more tokens than there are embeddings; fewer are usual, embeddings are padded."""
    tokens = len(file.metadata["tokenizer.ggml.tokens"])
    if tokens > config["vocab_size"]:
        raise ModelError(
            f"{file.name} contradicts itself: its tokenizer has {tokens} tokens and "
            f"its embeddings are for {config['vocab_size']}",
            remedy=FOLDER,
        )


def _frequency_factors(
    file: GGUFFile, architecture: Architecture, config: Config
) -> np.ndarray | None:
    """Put published factors into ``config``; return those that ``config`` cannot express.

    Raises:
        ModelError: they do not fit the heads, or positions are scaled in another way, too.
    """
    if architecture.model_type != "llama" or FREQUENCY_FACTORS not in file.tensors:
        return None
    info, dims = file.tensor(FREQUENCY_FACTORS), head_size(file)
    if info.shape != (dims // 2,) or info.dtype not in _DTYPES or "rope_scaling" in config:
        raise ModelError(
            f"{file.name} has {FREQUENCY_FACTORS} of the shape {info.shape}, heads of {dims} "
            f"and the scaling {config.get('rope_scaling')}, which do not go together",
            remedy=FOLDER,
        )
    factors = np.array(blocks.read_floats(file.path, info).astype(mx.float32))
    scaling = llama3_scaling(factors, dims, config["rope_theta"])
    if scaling is None:
        return factors
    config["rope_scaling"] = scaling
    return None


def _placeholder(tensor: SourceTensor) -> mx.array:
    return mx.zeros(tensor.shape, tensor.dtype)


def _tensors(
    file: GGUFFile,
    architecture: Architecture,
    config: Config,
    network: nn.Module,
    placed: dict[str, TensorInfo],
) -> Iterator[tuple[str, SourceTensor]]:
    """Yield a source for each parameter of the network, in its order."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, array in tree_flatten(network.parameters()):
        stem, leaf = name.rsplit(".", 1)
        layer = stem.rsplit(".", 1)[-1]
        info = placed.get(name) or placed[f"{stem}.weight"]
        tensor = _stored(file.path, info, leaf, tuple(array.shape))
        if architecture.interleaves and layer in heads:
            tensor = _changed(tensor, partial(split_halves, heads=heads[layer]))
        if architecture.adds_one and layer.endswith("norm"):
            tensor = _changed(tensor, _without_one)
        yield name, tensor


def _stored(path: Path, info: TensorInfo, leaf: str, shape: tuple[int, ...]) -> SourceTensor:
    """Return a source for a tensor as it is stored, or for one of its three parts."""
    if info.dtype in _DTYPES:
        read, dtype = blocks.read_floats, _DTYPES[info.dtype]
    elif shape == info.shape:
        read, dtype = blocks.read_float16, mx.float16
    else:
        read, dtype = _PARTS[leaf], mx.uint32 if leaf == "weight" else mx.float16
    return SourceTensor(shape=shape, dtype=dtype, read=partial(read, path, info))


def _changed(tensor: SourceTensor, change: Callable[[mx.array], mx.array]) -> SourceTensor:
    return replace(tensor, read=lambda: change(tensor.read()))


def _without_one(norm: mx.array) -> mx.array:
    return norm - 1


def split_halves(array: mx.array, heads: int) -> mx.array:
    """Put the rows of each head from pairs (0, h, 1, h+1, …) into halves (0, 1, …, h, h+1, …).

    ``array``: (heads · head_dim, n), the weight of q or k, or the scales or biases of one.
    """
    rows, columns = array.shape
    pairs = array.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)
