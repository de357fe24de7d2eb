"""The architectures that are read from GGUF: mlx-lm's network and configuration of each.

The rule this module protects: a file says how its network is made, or the network is refused. What
llama.cpp takes for granted where the file is silent is stated here, with where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from daemon.architectures import check_gguf_architecture
from daemon.errors import ModelError
from workers.language.gguf import names
from workers.language.gguf.file import FOLDER, GGUFFile
from workers.language.gguf.positions import long_factors, rope_scaling, unknown_scaling

Config = dict[str, Any]

# llama.cpp's hparams for 27B (load_hparams of llama-model.cpp): known by their number of layers.
_WIDE_GEMMAS = {"gemma2": 46, "gemma3": 62}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How one architecture is read.

    ``model_type`` is mlx-lm's. ``configure`` gives what is not common to all, ``interleaves`` says
    that the converter put the rotary rows of q and k into pairs, and ``adds_one`` that it added 1
    to the norms, which mlx-lm's network does, too.
    """

    model_type: str
    layer_names: Mapping[str, str]
    configure: Callable[[GGUFFile], Config]
    interleaves: bool = False
    adds_one: bool = False


def architecture_of(file: GGUFFile) -> Architecture:
    """Return how the file is read.

    Raises:
        ModelError: its architecture is not known, or is a mixture of experts.
    """
    check_gguf_architecture(file.name, file.architecture, file.metadata)
    return ARCHITECTURES[file.architecture]


def configuration(file: GGUFFile, architecture: Architecture) -> Config:
    """Return the configuration of mlx-lm's network, without what is stored quantised.

    Raises:
        ModelError: a value is missing, or one of another kind of network.
    """
    return _common(file, architecture) | architecture.configure(file)


def _common(file: GGUFFile, architecture: Architecture) -> Config:
    heads = file.number("attention.head_count")
    rows = file.tensor(names.EMBEDDINGS).shape[0]
    return {
        "model_type": architecture.model_type,
        "hidden_size": file.number("embedding_length"),
        "num_hidden_layers": _layers(file),
        "intermediate_size": file.number("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.number("attention.head_count_kv", heads),
        "rope_theta": file.number("rope.freq_base", 10000.0),
        "max_position_embeddings": file.number("context_length", 4096),
        "vocab_size": rows,
        "tie_word_embeddings": names.OUTPUT not in file.tensors,
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
    }


def _layers(file: GGUFFile) -> int:
    """Return the number of blocks, having checked that there are that many before any is built."""
    declared = int(file.number("block_count"))
    found = len({name.split(".")[1] for name in file.tensors if name.startswith("blk.")})
    if declared != found:
        raise ModelError(
            f"{file.name} has tensors for {found} blocks and declares {declared}",
            remedy="download the file again",
        )
    return declared


def head_size(file: GGUFFile) -> int:
    """Return the width of an attention head."""
    even = file.number("embedding_length") // file.number("attention.head_count")
    return int(file.number("attention.key_length", even or None))


def _norm(file: GGUFFile) -> Config:
    return {"rms_norm_eps": file.number("attention.layer_norm_rms_epsilon")}


def _heads(file: GGUFFile) -> Config:
    """Return the width of heads that are rotated whole."""
    size = head_size(file)
    _check_rotated(file, size)
    return {"head_dim": size}


def _check_rotated(file: GGUFFile, size: int) -> None:
    if file.number("rope.dimension_count", size) != size:
        raise unknown_scaling(
            file, f"rotating {file.number('rope.dimension_count')} of a head's {size} numbers"
        )


def _even_heads(file: GGUFFile) -> int:
    """Return the width of heads in networks that know none but the width divided by the heads."""
    size = head_size(file)
    if size * file.number("attention.head_count") != file.number("embedding_length"):
        raise ModelError(
            f"{file.name} has {file.number('attention.head_count')} heads of {size} numbers in a "
            f"width of {file.number('embedding_length')}, which mlx-lm's {file.architecture} "
            "cannot have",
            remedy=FOLDER,
        )
    return size


def _scaling(file: GGUFFile) -> Config:
    found = rope_scaling(file)
    return {"rope_scaling": found} if found else {}


def _check_unscaled(file: GGUFFile) -> None:
    if rope_scaling(file):
        raise unknown_scaling(file, repr(file.setting("rope.scaling.type")))


def _llama(file: GGUFFile) -> Config:
    if file.setting("attention.temperature_scale"):
        raise ModelError(
            f"{file.name} scales attention by its positions, which mlx-lm's llama does not",
            remedy=FOLDER,
        )
    return _norm(file) | _heads(file) | _scaling(file)


def _qwen2(file: GGUFFile) -> Config:
    _check_rotated(file, _even_heads(file))
    return _norm(file) | _scaling(file)


def _qwen3(file: GGUFFile) -> Config:
    return _norm(file) | _heads(file) | _scaling(file)


def _phi2(file: GGUFFile) -> Config:
    _check_unscaled(file)
    return _part_rotated(file) | {"layer_norm_eps": file.number("attention.layer_norm_epsilon")}


def _phi3(file: GGUFFile) -> Config:
    found = long_factors(file) or rope_scaling(file)
    if found and found.get("rope_type") == "yarn":
        raise unknown_scaling(file, "'yarn'")
    known = file.number("context_length", 4096)
    return (
        _norm(file)
        | _part_rotated(file)
        | ({"rope_scaling": found} if found else {})
        | {
            "original_max_position_embeddings": file.number(
                "rope.scaling.original_context_length", known
            )
        }
    )


def _part_rotated(file: GGUFFile) -> Config:
    size = _even_heads(file)
    return {"partial_rotary_factor": file.number("rope.dimension_count", size) / size}


def _gemma(file: GGUFFile) -> Config:
    _check_unscaled(file)
    return _norm(file) | _heads(file)


def _gemma2(file: GGUFFile) -> Config:
    _check_unscaled(file)
    return (
        _norm(file)
        | _heads(file)
        | {
            "attn_logit_softcapping": file.number("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": file.number("final_logit_softcapping", 30.0),
            "query_pre_attn_scalar": _query_scale(file),
        }
    )


def _gemma3(file: GGUFFile) -> Config:
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if file.setting(key):
            raise ModelError(
                f"{file.name} has {file.architecture}.{key} = {file.setting(key)}, "
                "which mlx-lm's gemma3 does not do",
                remedy=FOLDER,
            )
    return (
        _norm(file)
        | _heads(file)
        | _scaling(file)
        | {
            "rope_theta": file.number("rope.freq_base", 1e6),
            "rope_local_base_freq": file.number("rope.freq_base_swa", 10000.0),
            "sliding_window": file.number("attention.sliding_window"),
            "sliding_window_pattern": file.number("attention.sliding_window_pattern", 6),
            "query_pre_attn_scalar": _query_scale(file),
        }
    )


def _query_scale(file: GGUFFile) -> int:
    """Return what queries are divided by the root of; the file does not say it."""
    if _layers(file) == _WIDE_GEMMAS[file.architecture]:
        return int(file.number("embedding_length") // file.number("attention.head_count"))
    return head_size(file)


_LLAMA = Architecture(
    model_type="llama", layer_names=names.LLAMA, configure=_llama, interleaves=True
)
# general.architecture: how it is read. Mistral's models are "llama", later ones "mistral3".
ARCHITECTURES = {
    "llama": _LLAMA,
    "mistral3": _LLAMA,
    "qwen2": Architecture(model_type="qwen2", layer_names=names.LLAMA, configure=_qwen2),
    "qwen3": Architecture(model_type="qwen3", layer_names=names.QWEN3, configure=_qwen3),
    "phi2": Architecture(model_type="phi", layer_names=names.PHI2, configure=_phi2),
    "phi3": Architecture(model_type="phi3", layer_names=names.PHI3, configure=_phi3),
    "gemma": Architecture(
        model_type="gemma", layer_names=names.LLAMA, configure=_gemma, adds_one=True
    ),
    "gemma2": Architecture(
        model_type="gemma2", layer_names=names.GEMMA2, configure=_gemma2, adds_one=True
    ),
    "gemma3": Architecture(
        model_type="gemma3_text", layer_names=names.GEMMA3, configure=_gemma3, adds_one=True
    ),
}
