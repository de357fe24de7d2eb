"""The names of a GGUF file's tensors in the networks of mlx-lm.

The rule this module protects: names are matched exactly. They are llama.cpp's (TENSOR_NAMES in
``constants.py`` of its package ``gguf``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

EMBEDDINGS, OUTPUT = "token_embd.weight", "output.weight"

_BLOCK = re.compile(r"blk\.(0|[1-9]\d*)\.([a-z_]+)\.(weight|bias)")
_TOP = re.compile(r"([a-z_]+)\.(weight|bias)")
_TOP_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}

LLAMA = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
QWEN3 = LLAMA | _HEAD_NORMS
GEMMA2 = LLAMA | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
GEMMA3 = GEMMA2 | _HEAD_NORMS
PHI2 = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.dense",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
    "attn_norm": "input_layernorm",
    "output_norm": "model.final_layernorm",
}
PHI3 = {
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def mlx_name(layer_names: Mapping[str, str], name: str) -> str | None:
    """Return mlx-lm's name of a GGUF tensor, None if there is none."""
    if match := _BLOCK.fullmatch(name):
        layer = layer_names.get(match[2])
        return f"model.layers.{match[1]}.{layer}.{match[3]}" if layer else None
    if (match := _TOP.fullmatch(name)) and match[1] in _TOP_NAMES:
        top = (_TOP_NAMES | dict(layer_names))[match[1]]
        return f"{top}.{match[2]}"
    return None
