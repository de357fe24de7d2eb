"""Reading a Stable Diffusion checkpoint that is one safetensors file, in its original layout.

The rule this module protects: what comes out is what the same model's folder would give. What the
file does not tell is taken, in this order, from ``NAME.json`` beside it (``single_file_sidecar``),
from marks in the file, and from the family (``single_file_configs``). Tensors are not read here:
MLX reads each when it is first evaluated.
"""

from __future__ import annotations

from pathlib import Path

from daemon.errors import ModelError
from workers.diffusion.clip_vocabulary import SIZE, clip_vocabulary
from workers.diffusion.components import Component, Components
from workers.diffusion.single_file_configs import (
    Config,
    Encoder,
    Family,
    clip_config,
    read_layout,
    unet_config,
    vae_config,
)
from workers.diffusion.single_file_kinds import UNET, VAE, find_family
from workers.diffusion.single_file_parts import Weights, find_parts, inside, shapes_of, take_weights
from workers.diffusion.single_file_schedule import is_velocity, scheduler_config
from workers.diffusion.single_file_sidecar import read_sidecar
from workers.diffusion.tensor_files import TensorFile, open_tensors
from workers.diffusion.tokenizer import EOS, Tokenizer

_PAD = "!"  # fills the windows of OpenCLIP's encoders: token 0


def read_single_file(path: Path) -> Components:
    """Read a checkpoint of SD 1.x, SD 2.x or SDXL, base or inpainting.

    Raises:
        ModelError: the file is no such checkpoint, incomplete or damaged, or a tensor is unknown.
    """
    file = open_tensors(path)
    family = find_family(path.name, file.shapes.keys())
    sidecar = read_sidecar(path)
    weights = take_weights(file, find_parts(file, family))
    schedule = scheduler_config(file, family, sidecar)
    components = {
        name: Component(
            config=sidecar.override(name, config),
            weights=weights[name],
            source=f"{path.name}/{name}",
        )
        for name, config in _configs(file, family, weights, velocity=is_velocity(schedule)).items()
    }
    return Components(
        unet=components["unet"],
        vae=components["vae"],
        text_encoders=tuple(components[name] for name in family.encoders),
        tokenizers=tuple(_tokenizer(encoder) for encoder in family.encoders.values()),
        scheduler=schedule,
        files=(path,),
        zero_empty_negative=family.zero_empty_negative,
    )


def _configs(
    file: TensorFile, family: Family, weights: dict[str, Weights], *, velocity: bool
) -> dict[str, Config]:
    """Return the configuration of each network by its name in a diffusers folder."""
    source, unet = file.path.name, inside(file, UNET)
    configs = {
        name: clip_config(source, shapes_of(weights[name]), encoder)
        for name, encoder in family.encoders.items()
    }
    for config in configs.values():
        _check_vocabulary(source, config)
    pooled = next((c["projection_dim"] for c in configs.values() if "projection_dim" in c), 0)
    configs["vae"] = vae_config(source, inside(file, VAE), family)
    configs["unet"] = unet_config(source, unet, read_layout(source, unet), family, pooled)
    side = family.velocity_size if velocity else family.size
    configs["unet"]["sample_size"] = side >> (len(configs["vae"]["block_out_channels"]) - 1)
    return configs


def _check_vocabulary(source: str, config: Config) -> None:
    if config["vocab_size"] != SIZE:
        raise ModelError(
            f"{source} has a text encoder of {config['vocab_size']} tokens; CLIP's tokenizer, "
            f"which single files rely on, has {SIZE}",
            remedy="use the model's folder in diffusers' layout, which brings its tokenizer",
        )


def _tokenizer(encoder: Encoder) -> Tokenizer:
    vocabulary, merges = clip_vocabulary()
    return Tokenizer.from_vocabulary(vocabulary, merges, pad=_PAD if encoder.openclip else EOS)
