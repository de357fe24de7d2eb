"""Whole model folders: as the current libraries save them, and as the first releases did.

A folder is kept as its small files and a ``weights.json`` that says which seeded network each
weight file holds; see ``tiny.write_folder``. The old form follows the files of Stable Diffusion 1.4
(diffusers 0.2 to 0.6, transformers 4.22): settings that did not exist yet are absent, the text
encoder's parameters begin with ``text_model.``, ``position_ids`` are stored, the VAE's attention
has its first names.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import (
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from transformers import CLIPTokenizer

from tests.references.families import ENCODERS
from tests.references.networks import network
from tests.references.vocabulary import vocabulary

Described = dict[str, Any]

_PNDM: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "text_encoder_2": "text_encoder_2/model.safetensors",
}


def tokenizer(pad: str) -> Any:
    """Return transformers' tokenizer over the small vocabulary; SD 2 and SDXL pad with "!"."""
    words, merges = vocabulary()
    return CLIPTokenizer(vocab=words, merges=merges, pad_token=pad, model_max_length=77)


def sd1() -> Any:
    """Return a pipeline of Stable Diffusion 1's form."""
    return _pipeline("sd1", "sd1", PNDMScheduler(**_PNDM), "<|endoftext|>")


def sd2() -> Any:
    """Return a pipeline of Stable Diffusion 2's form, which predicts v."""
    scheduler = PNDMScheduler(**_PNDM, prediction_type="v_prediction")
    return _pipeline("sd2", "sd2", scheduler, "!")


def _pipeline(name: str, encoder: str, scheduler: Any, pad: str) -> Any:
    return StableDiffusionPipeline(
        unet=network("unet", name),
        vae=network("vae", "sd"),
        text_encoder=network("clip", encoder),
        tokenizer=tokenizer(pad),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> Any:
    """Return a pipeline of SDXL's form: two text encoders, zeros where nothing is negated."""
    kept = ("beta_start", "beta_end", "beta_schedule", "steps_offset")
    return StableDiffusionXLPipeline(
        unet=network("unet", "sdxl"),
        vae=network("vae", "sdxl"),
        text_encoder=network("clip", "sdxl-1"),
        text_encoder_2=network("clip", "sdxl-2"),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        scheduler=EulerDiscreteScheduler(
            **{key: _PNDM[key] for key in kept}, timestep_spacing="leading"
        ),
        add_watermarker=False,
    )


NETWORKS = {
    "sd1": {"unet": "unet/sd1", "vae": "vae/sd", "text_encoder": "clip/sd1"},
    "sd2": {"unet": "unet/sd2", "vae": "vae/sd", "text_encoder": "clip/sd2"},
    "sdxl": {
        "unet": "unet/sdxl",
        "vae": "vae/sdxl",
        "text_encoder": "clip/sdxl-1",
        "text_encoder_2": "clip/sdxl-2",
    },
}


def save(folder: Path, name: str, pipeline: Any) -> None:
    """Write the folder as ``save_pretrained`` does, its weights described."""
    pipeline.save_pretrained(folder)
    held = {WEIGHTS[part]: holding(network) for part, network in NETWORKS[name].items()}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.safetensors")}
    assert found == held.keys(), found ^ held.keys()
    for place in held:
        (folder / place).unlink()
    write(folder, {"weights.json": held})


def holding(network_name: str, renamed: Mapping[str, str] | None = None, *extra: str) -> Described:
    """Return what a weight file holds."""
    return {"network": network_name, "renamed": dict(renamed or {}), "position_ids": list(extra)}


def write(folder: Path, files: Mapping[str, Described | str]) -> None:
    """Write small files by their places; objects as JSON."""
    for place, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")


def save_old_sd1(folder: Path, new: Path, shapes: Mapping[str, Any]) -> None:
    """Write the folder ``sd1`` as the first releases had it, from the new one."""
    weights = {
        WEIGHTS["unet"]: holding("unet/sd1"),
        WEIGHTS["vae"]: holding("vae/sd", _old_attention(shapes["vae/sd"])),
        WEIGHTS["text_encoder"]: _old_encoder("clip/sd1", shapes),
    }
    configs = {
        "unet/config.json": _kept(new / "unet/config.json", UNET_0_2),
        "vae/config.json": _kept(new / "vae/config.json", VAE_0_2),
        "text_encoder/config.json": _old_clip(),
        "scheduler/scheduler_config.json": OLD_SCHEDULER,
        "model_index.json": OLD_INDEX,
        "weights.json": weights,
    }
    write(folder, configs | old_tokenizer("<|endoftext|>", "tokenizer"))


def save_old_sdxl(folder: Path, new: Path, shapes: Mapping[str, Any]) -> None:
    """Write the folder ``sdxl`` as it was published: transformers' files are older than today's."""
    shutil.copytree(new, folder, dirs_exist_ok=True)
    for place in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(folder / place)
    weights = json.loads((new / "weights.json").read_text())
    weights[WEIGHTS["text_encoder"]] = _old_encoder("clip/sdxl-1", shapes)
    write(folder, old_tokenizer("<|endoftext|>", "tokenizer") | old_tokenizer("!", "tokenizer_2"))
    write(folder, {"weights.json": weights})


def _old_encoder(network_name: str, shapes: Mapping[str, Any]) -> Described:
    renamed = {name: f"text_model.{name}" for name in shapes[network_name]}
    return holding(network_name, renamed, "text_model.embeddings.position_ids")


def _kept(file: Path, keys: tuple[str, ...]) -> Described:
    config = json.loads(file.read_text())
    return {key: config[key] for key in keys} | {"_diffusers_version": "0.2.2"}


def _old_attention(shapes: Mapping[str, Any]) -> dict[str, str]:
    """Return the first names of the VAE's attention parameters by their names today."""
    pairs = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn"))
    return {
        name: name.replace(f".{new}.", f".{old}.")
        for name in shapes
        for new, old in pairs
        if f"attentions.0.{new}." in name
    }


def _old_clip() -> Described:
    """Return a text encoder's configuration as transformers 4.22 wrote it."""
    return {
        "_name_or_path": "openai/clip-vit-large-patch14",
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "pad_token_id": 1,
        "torch_dtype": "float32",
        "transformers_version": "4.22.0.dev0",
    } | {key: value for key, value in ENCODERS["sd1"].items() if key not in ("hidden_act",)}


UNET_0_2 = (
    "_class_name",
    "act_fn",
    "attention_head_dim",
    "block_out_channels",
    "center_input_sample",
    "cross_attention_dim",
    "down_block_types",
    "downsample_padding",
    "flip_sin_to_cos",
    "freq_shift",
    "in_channels",
    "layers_per_block",
    "mid_block_scale_factor",
    "norm_eps",
    "norm_num_groups",
    "out_channels",
    "sample_size",
    "up_block_types",
)
VAE_0_2 = (
    "_class_name",
    "act_fn",
    "block_out_channels",
    "down_block_types",
    "in_channels",
    "latent_channels",
    "layers_per_block",
    "out_channels",
    "sample_size",
    "up_block_types",
)
OLD_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
OLD_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def old_tokenizer(pad: str, folder: str) -> dict[str, Described | str]:
    """Return the files of a tokenizer as transformers 4 saved the slow one."""
    words, merges = vocabulary()
    special = {
        role: {"content": text, "lstrip": False, "normalized": True, "rstrip": False}
        | {"single_word": False}
        for role, text in (
            ("bos_token", "<|startoftext|>"),
            ("eos_token", "<|endoftext|>"),
            ("unk_token", "<|endoftext|>"),
        )
    }
    config = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": 77,
        "name_or_path": "openai/clip-vit-large-patch14",
        "pad_token": pad,
        "special_tokens_map_file": "./special_tokens_map.json",
        "tokenizer_class": "CLIPTokenizer",
    } | {role: {"__type": "AddedToken"} | token for role, token in special.items()}
    return {
        f"{folder}/vocab.json": json.dumps(words, ensure_ascii=False),
        f"{folder}/merges.txt": "\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n",
        f"{folder}/special_tokens_map.json": special | {"pad_token": pad},
        f"{folder}/tokenizer_config.json": config,
    }
