"""Small Llama and Mistral models from a seed, for the script of the references and for the tests.

``release_weights`` are a case's weights as the publisher would ship them, ``known_weights`` the
same under Hugging Face's names and in its order of rows; ``expected_logits`` is what transformers
says of them. Every format that can hold such a model is tested against these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PLACE = Path(__file__).parent / "references" / "originals"
TOKENS = [[1, 7, 30, 30, 2, 44, 19, 8, 0, 25]]
VOCABULARY = 48


@dataclass(frozen=True, kw_only=True)
class Case:
    """A release: its params.json, the width of its feed-forward layers, transformers' class."""

    params: dict[str, Any]
    hidden: int
    architecture: str

    @property
    def heads(self) -> tuple[int, int, int]:
        """Heads of queries, heads of keys and values, and their size."""
        heads = self.params["n_heads"]
        size = self.params.get("head_dim", self.params["dim"] // heads)
        return heads, self.params.get("n_kv_heads", heads), size


_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}

# As the publishers write them: Llama 1 and 2 without the vocabulary, Mistral with everything.
CASES = {
    "llama": Case(
        params={"dim": 32, "n_layers": 2, "n_heads": 4, "norm_eps": 1e-6, "vocab_size": -1},
        hidden=56,
        architecture="Llama",
    ),
    "llama-grouped": Case(
        params={
            "dim": 32,
            "n_layers": 2,
            "n_heads": 8,
            "n_kv_heads": 2,
            "multiple_of": 16,
            "norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "vocab_size": VOCABULARY,
        },
        hidden=48,
        architecture="Llama",
    ),
    "mistral": Case(
        params={
            "dim": 32,
            "n_layers": 3,
            "head_dim": 16,
            "hidden_dim": 64,
            "n_heads": 4,
            "n_kv_heads": 2,
            "norm_eps": 1e-5,
            "sliding_window": 4096,
            "vocab_size": VOCABULARY,
        },
        hidden=64,
        architecture="Mistral",
    ),
}


def release_weights(case: Case, vocabulary: int = VOCABULARY) -> dict[str, np.ndarray]:
    """Make the weights of a case, float32, under Meta's names, from a seed.

    q and k are large, so that attention is far from even and positions matter.
    """
    rng = np.random.default_rng(case.params["n_heads"])
    dim, (heads, groups, size) = case.params["dim"], case.heads

    def matrix(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        drawn = rng.standard_normal((rows, columns)) * gain / np.sqrt(columns)
        return np.asarray(drawn, np.float32)

    def norm() -> np.ndarray:
        return np.asarray(1 + 0.1 * rng.standard_normal(dim), np.float32)

    weights = {"tok_embeddings.weight": matrix(vocabulary, dim, 5.0), "norm.weight": norm()}
    weights["output.weight"] = matrix(vocabulary, dim)
    for number in range(case.params["n_layers"]):
        layer = {
            "attention.wq": matrix(heads * size, dim, 2.0),
            "attention.wk": matrix(groups * size, dim, 2.0),
            "attention.wv": matrix(groups * size, dim),
            "attention.wo": matrix(dim, heads * size),
            "feed_forward.w1": matrix(case.hidden, dim),
            "feed_forward.w2": matrix(dim, case.hidden),
            "feed_forward.w3": matrix(case.hidden, dim),
            "attention_norm": norm(),
            "ffn_norm": norm(),
        }
        weights |= {f"layers.{number}.{name}.weight": array for name, array in layer.items()}
    return weights


def known_weights(case: Case, vocabulary: int = VOCABULARY) -> dict[str, np.ndarray]:
    """Return the same weights under Hugging Face's names, rows of q and k in halves."""
    weights = release_weights(case, vocabulary)
    return {known_name(name): _halves(case, name, array) for name, array in weights.items()}


def known_config(case: Case) -> dict[str, Any]:
    """Return what Hugging Face's ``config.json`` says of a case."""
    heads, groups, size = case.heads
    return {
        "model_type": case.architecture.lower(),
        "architectures": [f"{case.architecture}ForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": case.params["dim"],
        "intermediate_size": case.hidden,
        "num_hidden_layers": case.params["n_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": size,
        "rms_norm_eps": case.params["norm_eps"],
        "rope_theta": case.params.get("rope_theta", 10000.0),
        "tie_word_embeddings": False,
    }


def expected_logits(name: str) -> np.ndarray:
    """Return transformers' logits of a case for ``TOKENS``, (1, tokens, vocabulary)."""
    with np.load(PLACE / "logits.npz") as references:
        return np.asarray(references[name])


def known_name(name: str) -> str:
    """Return Hugging Face's name of a release's tensor."""
    stem, _, leaf = name.rpartition(".")
    if stem.startswith("layers."):
        _, number, layer = stem.split(".", 2)
        return f"model.layers.{number}.{_LAYER[layer]}.{leaf}"
    return f"{_TOP[stem]}.{leaf}"


def _halves(case: Case, name: str, array: np.ndarray) -> np.ndarray:
    """Reorder the rows of q and k: of each head first the even ones, then the odd ones."""
    heads, groups, size = case.heads
    number = {"wq": heads, "wk": groups}.get(name.split(".")[-2])
    if number is None:
        return array
    order = [*range(0, size, 2), *range(1, size, 2)]
    return array[[head * size + row for head in range(number) for row in order]]
