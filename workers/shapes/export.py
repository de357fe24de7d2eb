"""Writing the trained model as a folder in diffusers' layout, in float16.

The rule this module protects: what is written is what any reader of Stable Diffusion folders
expects: diffusers' and transformers' names, PyTorch's layouts, one file for each network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx

from daemon.errors import NonFiniteError
from workers.files import write_json
from workers.shapes import sizes as configurations
from workers.shapes.sizes import Sizes
from workers.shapes.vocabulary import caption_vocabulary, write_tokenizer

NETWORK, ENCODER = "diffusion_pytorch_model.safetensors", "model.safetensors"

# Transformers before version 5 reads only names with this prefix, later versions both.
_PREFIX = "text_model."

Tensors = Mapping[str, mx.array]


def write_model(
    target: Path,
    sizes: Sizes,
    *,
    unet: Tensors,
    text_encoder: Tensors,
    vae: Tensors,
    scaling: float,
) -> None:
    """Write the folder ``target``; tensors are given with MLX's layouts and diffusers' names.

    Raises:
        NonFiniteError: a weight is NaN or infinite, or too large for float16.
    """
    vocabulary = caption_vocabulary()
    for part, tensors in (("unet", unet), ("vae", vae)):
        _write_tensors(target / part / NETWORK, tensors)
    prefixed = {_PREFIX + name: array for name, array in text_encoder.items()}
    _write_tensors(target / "text_encoder" / ENCODER, prefixed)
    write_json(target / "unet" / "config.json", configurations.unet_config(sizes))
    write_json(target / "vae" / "config.json", configurations.vae_config(sizes, scaling))
    text_config = configurations.text_config(sizes, vocabulary)
    write_json(target / "text_encoder" / "config.json", text_config)
    write_tokenizer(target / "tokenizer", vocabulary)
    (target / "scheduler").mkdir(exist_ok=True)
    write_json(target / "scheduler" / "scheduler_config.json", configurations.scheduler_config())
    write_json(target / "model_index.json", configurations.model_index())


def weight_bytes(target: Path) -> int:
    """Return the size of all weights of a folder, bytes."""
    return sum(file.stat().st_size for file in target.glob("*/*.safetensors"))


def _write_tensors(path: Path, tensors: Tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    halved = {name: _halved(name, array) for name, array in tensors.items()}
    # Readers of PyTorch files look for this mark.
    mx.save_safetensors(str(path), halved, metadata={"format": "pt"})


def _halved(name: str, array: mx.array) -> mx.array:
    """Return a tensor in float16, and a convolution as (out, in, y, x)."""
    if array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)
    halved = mx.contiguous(array.astype(mx.float16))
    if not mx.isfinite(halved).all():
        raise NonFiniteError(f"{name} holds numbers that float16 cannot")
    return halved
