"""A tiny model and LoRA files for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx import nn

from tests.unit.diffusion.ldm import Arrays, save
from workers.diffusion.clip import ClipTextModel
from workers.diffusion.configs import ClipConfig, UNetConfig
from workers.diffusion.lora import LoraReport, apply_loras
from workers.diffusion.unet import UNet2DConditionModel
from workers.models import own_tree

RANK = 2


@dataclass(frozen=True)
class Model:
    unet: UNet2DConditionModel
    text_encoders: tuple[ClipTextModel, ...]


def build(encoders: int = 1) -> Model:
    mx.random.seed(0)
    config = {
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
    }
    text = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "eos_token_id": 39,
    }
    return Model(
        UNet2DConditionModel(UNetConfig.read("unet", config)),
        tuple(
            ClipTextModel(ClipConfig.read("text", text, projects=False)) for _ in range(encoders)
        ),
    )


KEPT = build()
Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def borrow(model: Model = KEPT) -> Model:
    trees = tuple(own_tree(encoder) for encoder in model.text_encoders)
    return replace(model, unet=own_tree(model.unet), text_encoders=trees)


def picture(model: Model) -> mx.array:
    latents = mx.random.normal((1, 8, 8, 4), key=mx.random.key(1))
    context = mx.random.normal((1, 5, 16), key=mx.random.key(2))
    return model.unet(latents, mx.array([481.0]), context)


def text(model: Model, index: int = 0) -> mx.array:
    return model.text_encoders[index](mx.array([[38, 5, 9, 39]])).last


def layers(module: nn.Module, *kinds: str) -> dict[str, mx.array]:
    """Return the weights of the layers whose paths have one of these parts, in PyTorch's layout."""
    found = {
        path: layer.weight
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and any(kind in path for kind in kinds)
    }
    return {k: v.transpose(0, 3, 1, 2) if v.ndim == 4 else v for k, v in found.items()}


def pairs(weights: dict[str, mx.array]) -> dict[str, tuple[mx.array, mx.array]]:
    """Draw a first and a second matrix for each layer, as PyTorch programs store them."""
    generator = np.random.Generator(np.random.PCG64(4))

    def draw(*shape: int) -> mx.array:
        return mx.array(generator.standard_normal(shape, dtype=np.float32)) * 0.2

    return {
        path: (draw(RANK, *shape[1:]), draw(shape[0], RANK, *(1 for _ in shape[2:])))
        for path, shape in ((path, weight.shape) for path, weight in weights.items())
    }


def merged(weights: dict[str, mx.array], path: str, pair: tuple[mx.array, mx.array]) -> mx.array:
    """Return the layer's weight with the product of both matrices added, in MLX's layout."""
    down, up = pair
    delta = up.reshape(up.shape[0], -1) @ down.reshape(RANK, -1)
    weight = weights[path] + delta.reshape(weights[path].shape)
    return weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else weight


def close(ours: mx.array, theirs: mx.array) -> bool:
    return bool(mx.abs(ours - theirs).max() < 1e-5 * mx.abs(theirs).max())


def flat(path: str) -> str:
    return f"lora_unet_{path.replace('.', '_')}"


def one(path: str, layer: str, factor: float = 1.0) -> Arrays:
    """Return kohya's tensors, under the name ``layer``, for the UNet's layer at ``path``."""
    ((down, up),) = pairs(layers(KEPT.unet, path)).values()
    return {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up * factor}


def put(folder: Path, arrays: Arrays, scale: float = 1.0) -> tuple[LoraReport, Model]:
    model = borrow()
    file = save(folder / "file.safetensors", arrays)
    return apply_loras(model, [(file, "style.safetensors", scale)])[0], model
