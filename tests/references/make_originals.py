"""Write ``tests/unit/language/references/originals``: what transformers and torch say of releases.

Run from the project's folder, in an environment that has torch and transformers besides this
project's own requirements: ``python -m tests.references.make_originals``. Logits of the cases'
weights, and a small checkpoint that torch itself wrote, with the values it read. The tests read
what is written here and need neither.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import torch
import transformers

from tests.unit.language.original_cases import (
    CASES,
    PLACE,
    TOKENS,
    VOCABULARY,
    Case,
    release_weights,
)

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


def main() -> None:
    """Write everything anew."""
    torch.set_num_threads(1)
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    logits: dict[str, Any] = {name: _logits(case) for name, case in CASES.items()}
    np.savez_compressed(PLACE / "logits.npz", **logits)
    _write_checkpoint()


def _logits(case: Case) -> np.ndarray:
    """Return transformers' logits, (1, tokens, vocabulary), float32."""
    heads, groups, size = case.heads
    config = getattr(transformers, f"{case.architecture}Config")(
        vocab_size=VOCABULARY,
        hidden_size=case.params["dim"],
        intermediate_size=case.hidden,
        num_hidden_layers=case.params["n_layers"],
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=size,
        rms_norm_eps=case.params["norm_eps"],
        rope_parameters={
            "rope_type": "default",
            "rope_theta": case.params.get("rope_theta", 10000.0),
        },
        tie_word_embeddings=False,
    )
    model = getattr(transformers, f"{case.architecture}ForCausalLM")(config).float().eval()
    renamed = {_renamed(name): _halves(case, name, a) for name, a in release_weights(case).items()}
    model.load_state_dict(renamed, strict=True)
    with torch.no_grad():
        return np.asarray(model(torch.tensor(TOKENS)).logits.numpy())


def _renamed(name: str) -> str:
    parts = name.removesuffix(".weight").split(".")
    if parts[0] == "layers":
        return f"model.layers.{parts[1]}.{_LAYER['.'.join(parts[2:])]}.weight"
    return f"{_TOP[parts[0]]}.weight"


def _halves(case: Case, name: str, array: np.ndarray) -> Any:
    """Reorder the rows of q and k: of each head first the even ones, then the odd ones."""
    heads, groups, size = case.heads
    number = {"wq": heads, "wk": groups}.get(name.split(".")[-2])
    if number is None:
        return torch.from_numpy(array)
    order = [*range(0, size, 2), *range(1, size, 2)]
    rows = [head * size + row for head in range(number) for row in order]
    return torch.from_numpy(array[rows])


def _write_checkpoint() -> None:
    """Write torch.pth, of all types and layouts, and torch.npz, its values as float32."""
    torch.manual_seed(7)
    base = torch.randn(6, 8)
    halves = torch.randn(4, 3).to(torch.bfloat16)
    tensors = {
        "plain": base,
        "transposed": base.T,
        "part": base[1:5:2, 2:6],
        "expanded": base[:1].expand(3, 8),
        "half": torch.randn(5).to(torch.float16),
        "bfloat16": halves,
        "bfloat16_part": halves[2:, 1],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }
    torch.save(tensors, PLACE / "torch.pth")
    values = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    np.savez_compressed(PLACE / "torch.npz", **values)


if __name__ == "__main__":
    main()
