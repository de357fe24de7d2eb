"""Image models to measure: loaded from files, or of a known shape with random weights.

The rule this module protects: random weights go through the loader that files go through, so that
the network computes in the form that a job gets. Speed does not depend on the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from workers.diffusion.components import Component
from workers.diffusion.configs import UNetConfig, VaeConfig
from workers.diffusion.load import (
    DiffusionModel,
    Family,
    load_diffusion_model,
    read_components,
)
from workers.diffusion.prompts import Conditions, encode_prompts
from workers.diffusion.schedule import SchedulerConfig
from workers.diffusion.unet import UNet2DConditionModel
from workers.diffusion.vae import AutoencoderKL
from workers.diffusion.weights import load_unet
from workers.memory import on_gpu
from workers.shapes import sizes

Config = dict[str, Any]

PROMPT = "a red circle left of a blue square on a gray background"

_TEXT_LENGTH = 77

# unet/config.json of stable-diffusion-v1-5, stable-diffusion-2-1-base and
# stable-diffusion-xl-base-1.0, as far as it differs from diffusers' defaults.
_SDXL: Config = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
_UNETS: dict[str, Config] = {
    "sd15": {"attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64},
    "sd21": {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "sample_size": 64,
        "use_linear_projection": True,
    },
    "sdxl": _SDXL,
    "shapes": sizes.unet_config(sizes.SHAPES),
}
_FAMILIES: dict[str, Family] = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl", "shapes": "sd1"}

# vae/config.json of the three.
_VAE: Config = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "layers_per_block": 2,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured. ``unet``: its configuration as diffusers reads it."""

    model: DiffusionModel
    conditions: Conditions
    unet: Mapping[str, Any]
    random: bool


def default_dtype() -> mx.Dtype:
    """Return the type in which jobs compute here."""
    return mx.float16 if on_gpu() else mx.float32


def unet_config(shape: str) -> Config:
    """Return ``unet/config.json`` of a known shape."""
    return _UNETS[shape]


def subject(model: Path | None, shape: str, dtype: mx.Dtype) -> Subject:
    """Return the model in a file or folder, or one of a known shape with random weights.

    Raises:
        ModelError, OutOfMemoryError: as ``load_diffusion_model`` says.
    """
    return random_subject(shape, dtype) if model is None else loaded_subject(model, dtype)


def loaded_subject(path: Path, dtype: mx.Dtype) -> Subject:
    """Load the model at ``path``, with a prompt and, unless it is distilled, an empty negative.

    Raises:
        ModelError, OutOfMemoryError: as ``load_diffusion_model`` says.
    """
    model = load_diffusion_model(path, dtype)
    guided = model.unet.config.time_cond_dim is None
    return Subject(
        model=model,
        conditions=encode_prompts(model, PROMPT, None, guided=guided),
        unet=read_components(path).unet.config,
        random=False,
    )


def random_subject(shape: str, dtype: mx.Dtype) -> Subject:
    """Return a model of a known shape; nothing but the UNet's weights is computed yet."""
    mx.random.seed(0)
    config = unet_config(shape)
    unet, vae = _random_unet(shape, config, dtype), _random_vae(shape, dtype)
    height, width = (side * vae.config.factor for side in unet.config.sample_size)
    model = DiffusionModel(
        name=f"{shape} (random weights)",
        family=_FAMILIES[shape],
        unet=unet,
        vae=vae,
        text_encoders=(),
        tokenizers=(),
        scheduler=SchedulerConfig.from_dict(sizes.scheduler_config()),
        size=(height, width),
        zero_empty_negative=shape == "sdxl",
        fingerprint="",
        bytes=sum(array.nbytes for _, array in tree_flatten(unet.parameters())),
    )
    return Subject(model=model, conditions=_random_conditions(model), unet=config, random=True)


def _random_unet(shape: str, config: Config, dtype: mx.Dtype) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(UNetConfig.read(shape, config))
    drawn = {name: _as_pytorch(array) for name, array in tree_flatten(unet.parameters())}
    load_unet(unet, Component(config=config, weights=drawn, source=shape), dtype=dtype)
    unet.eval()
    mx.eval(unet.parameters())
    return unet


def _as_pytorch(array: mx.array) -> mx.array:
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def _random_vae(shape: str, dtype: mx.Dtype) -> AutoencoderKL:
    """Return a VAE whose weights are drawn when they are first used."""
    config = sizes.vae_config(sizes.SHAPES, 1.0) if shape == "shapes" else _VAE
    vae = AutoencoderKL(VaeConfig.read(shape, config))
    vae.set_dtype(mx.float32 if shape == "sdxl" else dtype)
    vae.eval()
    return vae


def _random_conditions(model: DiffusionModel) -> Conditions:
    config = model.unet.config
    pooled = None
    if config.text_time is not None:
        pooled = mx.random.normal((2, config.text_time[1] - 6 * config.text_time[0]))
    context = mx.random.normal((2, _TEXT_LENGTH, config.cross_dims[0]))
    return Conditions(context=context.astype(model.dtype), pooled=pooled)
