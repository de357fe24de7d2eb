"""How large the networks of ``shapes`` are, as configurations in diffusers' and transformers' JSON.

The rule this module protects: training and the shipped folder use the same configurations, and the
training reads them through the same code that loads any model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.diffusion.clip import ClipTextModel
from workers.diffusion.configs import ClipConfig, UNetConfig, VaeConfig
from workers.diffusion.unet import UNet2DConditionModel
from workers.diffusion.vae import AutoencoderKL
from workers.shapes.vocabulary import LENGTH, Vocabulary

# The release whose JSON this follows; a folder must name one.
_DIFFUSERS = "0.35.0"

# Noise schedule of Stable Diffusion 1.x: betas between the squares of a linear range.
TIMESTEPS, BETA_START, BETA_END = 1000, 0.00085, 0.012


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Widths and depths. ``unet_channels``: transformers in all blocks but the coarsest."""

    vae_channels: tuple[int, ...] = (32, 32, 64, 64)
    unet_channels: tuple[int, ...] = (32, 64, 128)
    text_width: int = 128
    text_layers: int = 3
    text_heads: int = 4
    latent_channels: int = 4
    head_width: int = 32
    groups: int = 32
    picture: int = 128

    @property
    def latent(self) -> int:
        """Height and width of the latents."""
        return int(self.picture // 2 ** (len(self.vae_channels) - 1))


SHAPES = Sizes()

# For trying the code: the same structure in seconds on a CPU, pictures of 16 by 16.
SMALL = Sizes(
    vae_channels=(8, 8),
    unet_channels=(8, 16),
    text_width=16,
    text_layers=1,
    text_heads=2,
    head_width=8,
    groups=4,
    picture=16,
)


def vae_config(sizes: Sizes, scaling: float) -> dict[str, Any]:
    """Return ``vae/config.json``; ``scaling`` is one over the latents' standard deviation."""
    blocks = len(sizes.vae_channels)
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": _DIFFUSERS,
        "act_fn": "silu",
        "block_out_channels": list(sizes.vae_channels),
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "force_upcast": False,
        "in_channels": 3,
        "latent_channels": sizes.latent_channels,
        "layers_per_block": 1,
        "norm_num_groups": sizes.groups,
        "out_channels": 3,
        "sample_size": sizes.picture,
        "scaling_factor": scaling,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
    }


def unet_config(sizes: Sizes) -> dict[str, Any]:
    """Return ``unet/config.json``; what diffusers names ``attention_head_dim`` counts heads."""
    attending = len(sizes.unet_channels) - 1
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": _DIFFUSERS,
        "act_fn": "silu",
        "attention_head_dim": [width // sizes.head_width for width in sizes.unet_channels],
        "block_out_channels": list(sizes.unet_channels),
        "center_input_sample": False,
        "cross_attention_dim": sizes.text_width,
        "down_block_types": ["CrossAttnDownBlock2D"] * attending + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": sizes.latent_channels,
        "layers_per_block": 1,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": sizes.groups,
        "out_channels": sizes.latent_channels,
        "sample_size": sizes.latent,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * attending,
    }


def text_config(sizes: Sizes, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return ``text_encoder/config.json``."""
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": vocabulary.start,
        "eos_token_id": vocabulary.end,
        "hidden_act": "quick_gelu",
        "hidden_size": sizes.text_width,
        "intermediate_size": 4 * sizes.text_width,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": LENGTH,
        "model_type": "clip_text_model",
        "num_attention_heads": sizes.text_heads,
        "num_hidden_layers": sizes.text_layers,
        "pad_token_id": vocabulary.end,
        "projection_dim": sizes.text_width,
        "torch_dtype": "float16",
        "vocab_size": len(vocabulary.tokens),
    }


def scheduler_config() -> dict[str, Any]:
    """Return ``scheduler/scheduler_config.json``: Stable Diffusion 1.x's noise, velocities."""
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": _DIFFUSERS,
        "beta_end": BETA_END,
        "beta_schedule": "scaled_linear",
        "beta_start": BETA_START,
        "clip_sample": False,
        "num_train_timesteps": TIMESTEPS,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
    }


def model_index() -> dict[str, Any]:
    """Return ``model_index.json``."""
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": _DIFFUSERS,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def build_vae(sizes: Sizes, scaling: float = 1.0) -> AutoencoderKL:
    """Return a VAE with random weights."""
    return AutoencoderKL(VaeConfig.read("shapes/vae", vae_config(sizes, scaling)))


def build_unet(sizes: Sizes) -> UNet2DConditionModel:
    """Return a UNet with random weights."""
    return UNet2DConditionModel(UNetConfig.read("shapes/unet", unet_config(sizes)))


def build_text_encoder(sizes: Sizes, vocabulary: Vocabulary) -> ClipTextModel:
    """Return a text encoder with random weights."""
    config = text_config(sizes, vocabulary)
    return ClipTextModel(ClipConfig.read("shapes/text_encoder", config, projects=False))
