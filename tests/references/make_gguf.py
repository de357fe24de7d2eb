"""Write ``tests/unit/language/references/gguf``: small GGUF files, and transformers' logits.

Run from the project's folder, in an environment that has torch, transformers and gguf besides this
project's own requirements: ``python -m tests.references.make_gguf``. The names of the tensors are
those of llama.cpp's own map in the package ``gguf``; what its converter does to weights is done
here as its source says (``convert_hf_to_gguf.py``). Where transformers reads GGUF itself, its
logits of the written file must be those of the network the file was made from. The tests read what
is written here and need none of these.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

from tests.unit.language.gguf_cases import CASES, PLACE, TOKENS, VOCABULARY, Case

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "attn_implementation": "eager",
}
# What transformers' own reader of GGUF knows, with the settings that it does not read.
_PEERS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "phi3": {"pad_token_id": 0},
    "gemma2": {
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 20.0,
        "final_logit_softcapping": 15.0,
    },
}
_INTERLEAVED = ("llama", "mistral3")


def main() -> None:
    """Write everything anew."""
    torch.set_num_threads(1)
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    logits = {}
    for number, (name, case) in enumerate(CASES.items()):
        model = _model(case, seed=number)
        path = PLACE / f"{name}.gguf"
        _write(path, case, model)
        logits[name] = _logits(model)
        if name in _PEERS:
            _check_peer(path, logits[name], _PEERS[name])
    arrays: dict[str, Any] = logits
    np.savez_compressed(PLACE / "logits.npz", **arrays)


def _model(case: Case, *, seed: int) -> Any:
    """Make a network of which every weight matters: attention is far from even."""
    torch.manual_seed(seed)
    named = {"Gemma3": "Gemma3TextConfig"}.get(case.model, f"{case.model}Config")
    config = getattr(transformers, named)(**(_COMMON | dict(case.config)))
    model = getattr(transformers, f"{case.model}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(_weight(case, name, tuple(weight.shape)))
    if case.architecture == "gemma":  # mlx-lm's network has the exact function
        for layer in model.model.layers:
            layer.mlp.act_fn = torch.nn.GELU()
    return model


def _weight(case: Case, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    drawn = torch.randn(shape)
    if len(shape) > 1:
        gain = 2.0 if "q_proj" in name or "k_proj" in name or "qkv" in name else 1.0
        return drawn * (gain / math.sqrt(shape[1]) if "embed" not in name else 1.0)
    if name.endswith("bias") or case.architecture.startswith("gemma"):
        return 0.1 * drawn
    return 1 + 0.1 * drawn


def _logits(model: Any) -> np.ndarray:
    """Return logits, (1, tokens, vocabulary), float32."""
    with torch.no_grad():
        return np.asarray(model(torch.tensor(TOKENS), use_cache=False).logits.numpy())


def _write(path: Path, case: Case, model: Any) -> None:
    writer = gguf.GGUFWriter(path, case.architecture)
    _write_sizes(writer, case, model.config)
    _write_tokenizer(writer, case)
    architecture = next(
        key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == case.architecture
    )
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    tied = model.config.tie_word_embeddings
    for name, weight in model.state_dict().items():
        if not (tied and name.startswith("lm_head")):
            target = names.get_name(name, try_suffixes=(".weight", ".bias"))
            writer.add_tensor(target, _converted(case, model.config, name, weight.numpy()))
    for name, factors in _factors(case, model.config).items():
        writer.add_tensor(name, factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_sizes(writer: Any, case: Case, config: Any) -> None:
    writer.add_name(f"studioq's reference {case.model}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if case.architecture != "phi2":
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if "rope.freq_base" not in case.metadata:
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for key, value in case.metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](f"{case.architecture}.{key}", value)


def _write_tokenizer(writer: Any, case: Case) -> None:
    """Write a tokenizer of single characters; only its being there matters here."""
    letters = [chr(33 + place) for place in range(VOCABULARY - 2)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(case.pre)
    writer.add_token_list(["<s>", "</s>", *letters])
    writer.add_token_types([3, 3, *[1] * len(letters)])
    writer.add_token_merges([])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _converted(case: Case, config: Any, name: str, weight: np.ndarray) -> np.ndarray:
    """Do what the converter does to the weights of an architecture."""
    if case.architecture.startswith("gemma") and name.endswith("norm.weight"):
        return weight + np.float32(1)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    layer = name.split(".")[-2]
    if case.architecture not in _INTERLEAVED or layer not in heads:
        return weight
    rows = weight.reshape(heads[layer], 2, -1, weight.shape[1])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def _factors(case: Case, config: Any) -> dict[str, np.ndarray]:
    rope = config.rope_parameters
    if rope.get("rope_type") == "longrope":
        return {
            "rope_factors_long.weight": np.array(rope["long_factor"], np.float32),
            "rope_factors_short.weight": np.array(rope["short_factor"], np.float32),
        }
    if rope.get("rope_type") == "llama3":
        return {"rope_freqs.weight": _llama3_factors(rope, config.head_dim)}
    return {}


def _llama3_factors(rope: Any, dims: int) -> np.ndarray:
    """Return what the converter writes for Llama 3.1's scaling."""
    frequencies = 1.0 / (rope["rope_theta"] ** (torch.arange(0, dims, 2).float() / dims))
    context, low, high = (
        rope[key]
        for key in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    factors = []
    for frequency in frequencies:
        wave = 2 * math.pi / frequency
        if wave < context / high:
            factors.append(1.0)
        elif wave > context / low:
            factors.append(rope["factor"])
        else:
            smooth = (context / wave - low) / (high - low)
            factors.append(float(1 / ((1 - smooth) / rope["factor"] + smooth)))
    return np.array(factors, np.float32)


def _check_peer(path: Path, expected: np.ndarray, unread: dict[str, Any]) -> None:
    """Refuse a file that transformers reads otherwise than it was meant."""
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        attn_implementation="eager",
        **unread,
    )
    error = np.abs(_logits(peer.eval()) - expected).max() / np.abs(expected).max()
    print(f"{path.name}: transformers' reader differs by {error:.1e} of the largest logit")  # noqa: T201
    if error > 2e-6:
        raise SystemExit(f"transformers reads {path.name} otherwise")


if __name__ == "__main__":
    main()
