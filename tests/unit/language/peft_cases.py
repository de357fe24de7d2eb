"""The adapters of the PEFT references, for the script that writes them and the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent / "references" / "peft"
TOKENS = [[5, 99, 17, 42, 42, 200, 3]]

# Options of PEFT's LoraConfig.
CASES: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rank-stabilised": {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "target_modules": "all-linear",
    },
    "first-block": {
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["o_proj", "down_proj"],
        "layers_to_transform": [0],
    },
    "dora": {"r": 3, "lora_alpha": 3, "use_dora": True, "target_modules": ["k_proj", "up_proj"]},
}
