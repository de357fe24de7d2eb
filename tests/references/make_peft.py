"""Write ``tests/unit/language/references/peft``: adapters that PEFT saved, and what it computes.

Run from the project's folder, in an environment that has torch, transformers and peft besides this
project's own requirements: ``python -m tests.references.make_peft``. The tests read what is written
here and need none of these. The model is the tests' own tiny one, which is made anew from its seed.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.conftest import write_tiny_model
from tests.unit.language.peft_cases import CASES, PLACE, TOKENS

_CONFIG = "adapter_config.json"


def main() -> None:
    """Write everything anew."""
    torch.set_num_threads(1)
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "tiny")
        logits: dict[str, Any] = {name: _adapter(model, name) for name in CASES}
    np.savez_compressed(PLACE / "logits.npz", **logits)


def _adapter(folder: Path, name: str) -> np.ndarray:
    """Save one case's adapter, with random weights; return the logits (1, tokens, vocabulary)."""
    torch.manual_seed(len(name))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **CASES[name])).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_" in key:
                change = 0.1 * torch.randn_like(weight)
                weight.copy_(weight + change if "magnitude" in key else change)
        logits = model(torch.tensor(TOKENS)).logits.numpy()
    model.save_pretrained(PLACE / name)
    (PLACE / name / "README.md").unlink()
    _forget_place(PLACE / name / _CONFIG)
    return np.asarray(logits)


def _forget_place(file: Path) -> None:
    """Leave the temporary folder's path out of a saved configuration."""
    config = json.loads(file.read_bytes())
    config["base_model_name_or_path"] = "tiny"
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
