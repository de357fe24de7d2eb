"""A release's or an npz model's weights for mlx-lm's llama, which is Mistral's network too.

The rule this module protects: the rotary rows of q and k are put from pairs, as the publishers'
code rotates them, into halves, as mlx-lm's does, exactly once. They are in pairs where the tensors
have the publishers' names, but for files in which ``rope_traditional`` is false: MLX's example
wrote TinyLlama so, with Meta's names and Hugging Face's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import llama
from mlx_lm.utils import infer_quant_config

from daemon.errors import ModelError
from daemon.release_names import EMBEDDINGS, FIRST_GATE, OUTPUT
from workers.language.formats import ModelFiles, settings_file
from workers.language.gguf import split_halves
from workers.language.originals.params import Params, read_settings, to_params
from workers.language.originals.release import Release, join_shards
from workers.language.originals.shards import open_shard
from workers.language.source import SourceTensor

_ROTATED = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
_LLAMAS = ("llama", "mistral")

Network = tuple[nn.Module, dict[str, Any], Mapping[str, SourceTensor]]


def open_release(files: ModelFiles) -> Network:
    """Open a folder with ``consolidated.*`` or ``weights*.npz``; reads headers alone.

    Returns:
        The network with placeholders, its configuration in mlx-lm's terms, and its tensors, each
        in the type that it is stored in.

    Raises:
        ModelError: a file is missing or damaged, of another network, or contradicts the settings.
    """
    file = settings_file(files)
    settings = read_settings(file)
    shards = [open_shard(path) for path in files.weights]
    width = settings.get("dim", settings.get("hidden_size"))
    release = join_shards(files.name, file.name, width, shards)
    config = _config(file, settings, release)
    tensors = _tensors(release, _heads(settings, config, release))
    network = _network(release, config, tensors)
    _check_quantization(release, settings.get("quantization"), config.get("quantization"))
    return network, config, {name: tensors[name] for name in _parameters(network)}


def _config(file: Path, settings: dict[str, Any], release: Release) -> dict[str, Any]:
    """Return the network's configuration, without its quantisation."""
    name = f"{file.parent.name}/{file.name}"
    if "hidden_size" in settings:
        config = _known_config(name, settings, release)
    else:
        config = _publishers_config(to_params(name, settings), release)
    if config["num_hidden_layers"] > len(release.stored):
        raise ModelError(
            f"{name} tells of {config['num_hidden_layers']} layers, and the weights have "
            f"{len(release.stored)} tensors",
            remedy=f"use the {file.name} that was published with the weights",
        )
    return config


def _known_config(name: str, settings: dict[str, Any], release: Release) -> dict[str, Any]:
    """Return a Hugging Face configuration of a network that npz files were made of."""
    if settings.get("model_type") not in _LLAMAS:
        raise ModelError(
            f"{name} is of the architecture {settings.get('model_type')!r}; npz weights are read "
            f"of {' and '.join(_LLAMAS)}",
            remedy="use the model's Hugging Face or MLX folder",
        )
    tied = bool(settings.get("tie_word_embeddings", release.is_tied))
    return {**_without_quantization(settings), "tie_word_embeddings": tied}


def _publishers_config(params: Params, release: Release) -> dict[str, Any]:
    config = {
        "model_type": "llama",
        "hidden_size": params.dim,
        "num_hidden_layers": params.layers,
        "intermediate_size": params.hidden_dim or release.shape(FIRST_GATE)[0],
        "num_attention_heads": params.heads,
        "num_key_value_heads": params.kv_heads,
        "head_dim": params.head_dim,
        "rms_norm_eps": params.norm_eps,
        "rope_theta": params.rope_theta,
        "vocab_size": params.vocab_size or release.shape(EMBEDDINGS)[0],
        "tie_word_embeddings": release.is_tied,
    }
    return config | ({"rope_scaling": dict(params.rope_scaling)} if params.rope_scaling else {})


def _without_quantization(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "quantization"}


def _heads(
    settings: Mapping[str, Any], config: Mapping[str, Any], release: Release
) -> dict[str, int]:
    """Return the number of heads of each layer whose rows are to be put into halves."""
    if not release.has_publishers_names or not settings.get("rope_traditional", True):
        return {}
    heads = config["num_attention_heads"]
    return {layer: int(config.get(key) or heads) for layer, key in _ROTATED.items()}


def _tensors(release: Release, heads: Mapping[str, int]) -> dict[str, SourceTensor]:
    def reading(name: str) -> Callable[[], mx.array]:
        rotated = heads.get(name.split(".")[-2]) if "." in name else None
        if rotated is None:
            return lambda: release.read(name)
        return lambda: split_halves(release.read(name), rotated)

    return {
        name: SourceTensor(shape=release.shape(name), dtype=release.dtype(name), read=reading(name))
        for name in release.stored
    }


def _network(
    release: Release, config: dict[str, Any], tensors: dict[str, SourceTensor]
) -> nn.Module:
    """Return the network with placeholders, having compared the files with it.

    ``config`` gets the quantisation that the files have; ``tensors`` loses an output layer that
    the embeddings are.
    """
    if config["tie_word_embeddings"]:
        tensors.pop(OUTPUT, None)
    network = llama.Model(llama.ModelArgs.from_dict(config))
    quantised = _quantised(network, tensors)
    if quantised:
        nn.quantize(network, class_predicate=lambda path, _: quantised.get(path, False))
        config["quantization"] = _quantization(quantised)
    wanted = _parameters(network)
    release.check(wanted)
    empty = [(name, mx.zeros(array.shape, tensors[name].dtype)) for name, array in wanted.items()]
    network.update(tree_unflatten(empty))
    return network


def _quantised(
    network: nn.Module, tensors: Mapping[str, SourceTensor]
) -> dict[str, dict[str, Any]]:
    """Return bits and group size of every layer that the files have quantised."""
    return {
        path: infer_quant_config(path, module, tensors)
        for path, module in network.named_modules()
        if f"{path}.scales" in tensors and hasattr(module, "to_quantized")
    }


def _quantization(layers: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a configuration's ``quantization``; layers that differ from the first are named."""
    first = next(iter(layers.values()))
    return {**first, **{path: found for path, found in layers.items() if found != first}}


def _check_quantization(release: Release, declared: Any, found: dict[str, Any] | None) -> None:
    """Refuse a file that says otherwise of the quantisation than the shapes of the weights."""
    if not isinstance(declared, dict) or found is None:
        return
    for key in ("bits", "group_size"):
        if declared.get(key, found[key]) != found[key]:
            raise ModelError(
                f"{release.name} contradicts its {release.settings}: the weights are quantised "
                f"with {key} {found[key]}, and not {declared[key]}",
                remedy=f"use the {release.settings} that was written with the weights",
            )


def _parameters(network: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(network.parameters()))
