"""Tiny checkpoints in the original layout of Stable Diffusion, made from its modules' definitions.

Names and shapes follow the constructors of CompVis ``ldm`` (openaimodel, attention, autoencoder),
Stability's ``sgm`` and OpenCLIP's text tower; no table of the code under test is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mlx.core as mx
import numpy as np

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Arrays = dict[str, mx.array]

VOCABULARY = 49408


@dataclass(frozen=True, kw_only=True)
class Original:
    """The options of an original model's configuration file."""

    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    layers: int = 1
    depths: tuple[int, ...] = (1, 0)  # of the transformers at each resolution
    middle: int = 1
    text: tuple[int, ...] = (32,)  # width of each text encoder
    text_layers: int = 2
    linear: bool = False
    added: int = 0  # numbers of the label embedding
    in_channels: int = 4
    vae: tuple[int, ...] = (32, 32)


def _layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    weight = {f"{name}.weight": tuple(shape)}
    return weight | ({f"{name}.bias": (shape[0],)} if bias else {})


def _inside(prefix: str, shapes: Mapping[str, Shape]) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _resblock(wide_in: int, wide: int, time: int) -> Shapes:
    shapes = _layer("in_layers.0", wide_in) | _layer("in_layers.2", wide, wide_in, 3, 3)
    shapes |= _layer("emb_layers.1", wide, time)
    shapes |= _layer("out_layers.0", wide) | _layer("out_layers.3", wide, wide, 3, 3)
    return shapes | (_layer("skip_connection", wide, wide_in, 1, 1) if wide_in != wide else {})


def _attention(wide: int, context: int) -> Shapes:
    shapes = _layer("to_q", wide, wide, bias=False)
    for name in ("to_k", "to_v"):
        shapes |= _layer(name, wide, context, bias=False)
    return shapes | _layer("to_out.0", wide, wide)


def _transformer(wide: int, context: int, depth: int, *, linear: bool) -> Shapes:
    shapes = _layer("norm", wide)
    for name in ("proj_in", "proj_out"):
        shapes |= _layer(name, wide, wide, *(() if linear else (1, 1)))
    for index in range(depth):
        block = _inside("attn1", _attention(wide, wide)) | _inside(
            "attn2", _attention(wide, context)
        )
        block |= _layer("ff.net.0.proj", 8 * wide, wide) | _layer("ff.net.2", wide, 4 * wide)
        for norm in ("norm1", "norm2", "norm3"):
            block |= _layer(norm, wide)
        shapes |= _inside(f"transformer_blocks.{index}", block)
    return shapes


def unet(model: Original) -> Shapes:
    """Return the UNet's tensors as ``UNetModel`` makes them."""
    first, time, context = model.channels, 4 * model.channels, sum(model.text)
    shapes = _layer("time_embed.0", time, first) | _layer("time_embed.2", time, time)
    if model.added:
        shapes |= _layer("label_emb.0.0", time, model.added) | _layer("label_emb.0.2", time, time)
    shapes |= _layer("input_blocks.0.0", first, model.in_channels, 3, 3)
    wide, skips, index, last = first, [first], 1, len(model.multipliers) - 1
    for level, multiplier in enumerate(model.multipliers):
        for _ in range(model.layers):
            block = _resblock(wide, first * multiplier, time)
            shapes |= _inside(f"input_blocks.{index}.0", block)
            wide = first * multiplier
            if model.depths[level]:
                block = _transformer(wide, context, model.depths[level], linear=model.linear)
                shapes |= _inside(f"input_blocks.{index}.1", block)
            skips.append(wide)
            index += 1
        if level != last:
            shapes |= _layer(f"input_blocks.{index}.0.op", wide, wide, 3, 3)
            skips.append(wide)
            index += 1
    for number in (0, 2):
        shapes |= _inside(f"middle_block.{number}", _resblock(wide, wide, time))
    block = _transformer(wide, context, model.middle, linear=model.linear)
    return shapes | _inside("middle_block.1", block) | _way_up(model, wide, skips)


def _way_up(model: Original, wide: int, skips: list[int]) -> Shapes:
    shapes: Shapes = {}
    first, index = model.channels, 0
    for level in reversed(range(len(model.multipliers))):
        for layer in range(model.layers + 1):
            block = _resblock(wide + skips.pop(), first * model.multipliers[level], 4 * first)
            shapes |= _inside(f"output_blocks.{index}.0", block)
            wide, place = first * model.multipliers[level], 1
            if model.depths[level]:
                depth, context = model.depths[level], sum(model.text)
                block = _transformer(wide, context, depth, linear=model.linear)
                shapes |= _inside(f"output_blocks.{index}.1", block)
                place = 2
            if level and layer == model.layers:
                shapes |= _layer(f"output_blocks.{index}.{place}.conv", wide, wide, 3, 3)
            index += 1
    return shapes | _layer("out.0", first) | _layer("out.2", 4, first, 3, 3)


def vae(widths: tuple[int, ...], layers: int = 1, latent: int = 4) -> Shapes:
    """Return the VAE's tensors as ``AutoencoderKL`` of ``ldm`` makes them."""
    encoder = _layer("conv_in", widths[0], 3, 3, 3) | _vae_middle(widths[-1])
    decoder = _layer("conv_in", widths[-1], latent, 3, 3) | _vae_middle(widths[-1])
    wide_in = widths[0]
    for level, wide in enumerate(widths):
        encoder |= _vae_blocks(f"down.{level}", wide_in, wide, layers)
        if level < len(widths) - 1:
            encoder |= _layer(f"down.{level}.downsample.conv", wide, wide, 3, 3)
        wide_in = wide
    for level, wide in reversed(list(enumerate(widths))):
        decoder |= _vae_blocks(f"up.{level}", wide_in, wide, layers + 1)
        if level:
            decoder |= _layer(f"up.{level}.upsample.conv", wide, wide, 3, 3)
        wide_in = wide
    encoder |= _layer("norm_out", widths[-1]) | _layer("conv_out", 2 * latent, widths[-1], 3, 3)
    decoder |= _layer("norm_out", widths[0]) | _layer("conv_out", 3, widths[0], 3, 3)
    shapes = _inside("encoder", encoder) | _inside("decoder", decoder)
    shapes |= _layer("quant_conv", 2 * latent, 2 * latent, 1, 1)
    return shapes | _layer("post_quant_conv", latent, latent, 1, 1)


def _vae_blocks(name: str, wide_in: int, wide: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in range(layers):
        shapes |= _inside(f"{name}.block.{layer}", _vae_resblock(wide_in, wide))
        wide_in = wide
    return shapes


def _vae_resblock(wide_in: int, wide: int) -> Shapes:
    shapes = _layer("norm1", wide_in) | _layer("conv1", wide, wide_in, 3, 3)
    shapes |= _layer("norm2", wide) | _layer("conv2", wide, wide, 3, 3)
    return shapes | (_layer("nin_shortcut", wide, wide_in, 1, 1) if wide_in != wide else {})


def _vae_middle(wide: int) -> Shapes:
    attention = _layer("norm", wide)
    for name in ("q", "k", "v", "proj_out"):
        attention |= _layer(name, wide, wide, 1, 1)
    shapes = _inside("mid.block_1", _vae_resblock(wide, wide))
    shapes |= _inside("mid.block_2", _vae_resblock(wide, wide))
    return shapes | _inside("mid.attn_1", attention)


def clip(wide: int, layers: int) -> Shapes:
    """Return a text encoder's tensors as transformers' ``CLIPTextModel`` once made them."""
    shapes = {
        "embeddings.token_embedding.weight": (VOCABULARY, wide),
        "embeddings.position_embedding.weight": (77, wide),
    } | _layer("final_layer_norm", wide)
    for index in range(layers):
        block: Shapes = {}
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            block |= _layer(f"self_attn.{name}", wide, wide)
        block |= _layer("mlp.fc1", 4 * wide, wide) | _layer("mlp.fc2", wide, 4 * wide)
        block |= _layer("layer_norm1", wide) | _layer("layer_norm2", wide)
        shapes |= _inside(f"encoder.layers.{index}", block)
    return _inside("text_model", shapes)


def openclip(wide: int, layers: int, projected: int) -> Shapes:
    """Return the tensors of OpenCLIP's text tower."""
    shapes: Shapes = {
        "positional_embedding": (77, wide),
        "text_projection": (wide, projected),
        "token_embedding.weight": (VOCABULARY, wide),
        "logit_scale": (),
    } | _layer("ln_final", wide)
    for index in range(layers):
        block: Shapes = {"attn.in_proj_weight": (3 * wide, wide), "attn.in_proj_bias": (3 * wide,)}
        block |= _layer("attn.out_proj", wide, wide)
        block |= _layer("mlp.c_fc", 4 * wide, wide) | _layer("mlp.c_proj", wide, 4 * wide)
        block |= _layer("ln_1", wide) | _layer("ln_2", wide)
        shapes |= _inside(f"transformer.resblocks.{index}", block)
    return shapes


def _networks(model: Original) -> Shapes:
    shapes = _inside("model.diffusion_model", unet(model))
    return shapes | _inside("first_stage_model", vae(model.vae))


def sd1(model: Original) -> Shapes:
    """Return the tensors of a checkpoint built like Stable Diffusion 1.x."""
    text = clip(model.text[0], model.text_layers)
    return _networks(model) | _inside("cond_stage_model.transformer", text)


def sd2(model: Original) -> Shapes:
    """Return the tensors of a checkpoint built like Stable Diffusion 2.x."""
    text = openclip(model.text[0], model.text_layers, model.text[0])
    return _networks(model) | _inside("cond_stage_model.model", text)


def sdxl(model: Original, projected: int) -> Shapes:
    """Return the tensors of a checkpoint built like SDXL."""
    first = clip(model.text[0], model.text_layers)
    second = openclip(model.text[1], model.text_layers, projected)
    shapes = _networks(model) | _inside("conditioner.embedders.0.transformer", first)
    return shapes | _inside("conditioner.embedders.1.model", second)


def make(shapes: Shapes) -> Arrays:
    """Return small random numbers of these shapes, float16."""
    return dict(_drawn(tuple(shapes.items())))


@cache
def _drawn(shapes: tuple[tuple[str, Shape], ...]) -> Arrays:
    generator = np.random.Generator(np.random.PCG64(3))
    return {
        name: mx.array(generator.standard_normal(shape, dtype=np.float32)).astype(mx.float16) * 0.05
        for name, shape in shapes
    }


def save(path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file."""
    mx.save_safetensors(str(path), arrays, dict(metadata or {}))
    return path
