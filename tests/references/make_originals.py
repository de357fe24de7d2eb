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
    known_weights,
)


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
    weights = {name: torch.from_numpy(array) for name, array in known_weights(case).items()}
    model.load_state_dict(weights, strict=True)
    with torch.no_grad():
        return np.asarray(model(torch.tensor(TOKENS)).logits.numpy())


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
