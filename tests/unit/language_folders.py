"""Language models as the daemon sees them: whole files whose weights are few and mean nothing."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.unit.image_folders import write_json

# 8 tokens of 4 numbers, a matrix, a norm: 8 x 4 + 4 x 4 + 4.
EMBEDDINGS, MATRIX, NORM = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.norm.weight",
)
SHAPES: Mapping[str, tuple[int, ...]] = {EMBEDDINGS: (8, 4), MATRIX: (4, 4), NORM: (4,)}
PARAMETERS = 52

# The ggml types that tests write: number, weights in a block, bytes of a block.
GGML = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_1": (3, 32, 20), "Q8_0": (8, 32, 34)}
TOKENS = {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b"],
}


def arrays(dtype: Any = np.float16) -> dict[str, np.ndarray]:
    """Return the weights under Hugging Face's names."""
    return {name: np.zeros(shape, dtype) for name, shape in SHAPES.items()}


def write_folder(folder: Path, **config: Any) -> Path:
    """Write a Hugging Face folder in which nothing is missing; return it."""
    write_json(folder / "config.json", {"model_type": "llama", **config})
    write_json(folder / "tokenizer.json", {})
    save_file(arrays(), folder / "model.safetensors")
    return folder


def write_shards(folder: Path) -> Path:
    """Write the same model in one file for each tensor, with an index; return the folder."""
    write_folder(folder)
    (folder / "model.safetensors").unlink()
    placed = {}
    for number, (name, array) in enumerate(arrays().items(), start=1):
        placed[name] = f"model-0000{number}-of-00003.safetensors"
        save_file({name: array}, folder / placed[name])
    write_json(folder / "model.safetensors.index.json", {"weight_map": placed})
    return folder


def write_gguf(
    file: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    metadata: Mapping[str, Any] = TOKENS,
) -> Path:
    """Write a GGUF file with tensors of these types and shapes, zeros all; return it."""
    tensors = {"token_embd.weight": ("F16", (8, 32))} if tensors is None else tensors
    infos, data = b"", b""
    for name, (dtype, shape) in tensors.items():
        kind, weights, width = GGML[dtype]
        sizes = b"".join(struct.pack("<Q", size) for size in shape[::-1])
        infos += _text(name) + struct.pack("<I", len(shape)) + sizes
        infos += struct.pack("<IQ", kind, len(data))
        data += _padded(bytes(int(np.prod(shape)) // weights * width))
    settings = b"".join(_text(key) + _value(value) for key, value in metadata.items())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + settings + infos
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_padded(head) + data)
    return file


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 32)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    kind, items = (8, map(_text, value)) if isinstance(value[0], str) else (5, map(_int, value))
    return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(items)


def _int(value: int) -> bytes:
    return struct.pack("<i", value)
