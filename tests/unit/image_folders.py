"""Image models as the daemon sees them: all files are there and readable, and weights are none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

INDEX: Mapping[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "requires_safety_checker": True,
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
CONFIGS: Mapping[str, Any] = {
    "unet": {"block_out_channels": [32, 64], "sample_size": 8, "cross_attention_dim": 768},
    "vae": {"block_out_channels": [32, 64, 64, 64]},
    "text_encoder": {},
}
WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}

# One tensor of each part that a single-file checkpoint must have.
CHECKPOINT = (
    "model.diffusion_model.input_blocks.0.0.weight",
    "first_stage_model.encoder.conv_in.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
)


def write_image_folder(folder: Path, index: object = None) -> Path:
    """Write a folder in diffusers' layout in which nothing is missing; return it."""
    for part, config in CONFIGS.items():
        write_json(folder / part / "config.json", config)
        write_tensors(folder / WEIGHTS[part], "conv_in.weight")
    write_json(folder / "scheduler" / "scheduler_config.json", {})
    write_json(folder / "tokenizer" / "tokenizer.json", {})
    write_json(folder / "model_index.json", INDEX if index is None else index)
    return folder


def write_checkpoint(file: Path, *tensors: str) -> Path:
    """Write a single-file checkpoint with these tensors, by default one of each part."""
    return write_tensors(file, *(tensors or CHECKPOINT))


def write_tensors(file: Path, *names: str) -> Path:
    """Write a safetensors file with a few numbers under each name; return it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.zeros(4, np.float32) for name in names}, file)
    return file


def write_json(file: Path, content: object) -> None:
    """Write a JSON file, and the folder around it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def cut_short(file: Path) -> None:
    """Take the last byte away, as an interrupted copy does."""
    file.write_bytes(file.read_bytes()[:-1])
