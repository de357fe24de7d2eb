"""What the modules of an original Stable Diffusion checkpoint are called in diffusers.

The rule this module protects: a name is translated whole or not at all. Each table maps a module of
the original layout (CompVis ``ldm``, Stability's ``sgm``, OpenCLIP) to its path in diffusers or
transformers; what no table knows is an error for the caller to name. The pairs were learnt from
diffusers' ``loaders/single_file_utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Places = dict[str, str]

# A name in which this stands is three tensors in one, to be split along the first axis.
FUSED = "*"
PROJECTIONS = ("q_proj", "k_proj", "v_proj")

_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_UNET_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_RESNET = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
}
_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
_OPENCLIP_ENDS = {
    "token_embedding": "embeddings.token_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final": "final_layer_norm",
}
_OPENCLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
    "attn.in_proj_weight": f"self_attn.{FUSED}.weight",
    "attn.in_proj_bias": f"self_attn.{FUSED}.bias",
}


# Names of transformers, with and without the beginning that its versions give or take.
CLIP_PLACES = {
    f"{start}{part}": part
    for start in ("", "text_model.")
    for part in (
        "embeddings.token_embedding",
        "embeddings.position_embedding",
        "encoder.layers",
        "final_layer_norm",
    )
}


@dataclass(frozen=True, kw_only=True)
class UNetLayout:
    """What numbers the original's blocks: for each block its layers, and whether it attends."""

    layers: tuple[int, ...]
    attended: tuple[bool, ...]


def unet_places(layout: UNetLayout) -> Places:
    """Return the modules of the UNet, in which the original counts through all blocks."""
    places = dict(_UNET_ENDS)
    _add(places, "middle_block.0", "mid_block.resnets.0", _UNET_RESNET)
    places["middle_block.1"] = "mid_block.attentions.0"
    _add(places, "middle_block.2", "mid_block.resnets.1", _UNET_RESNET)
    _add_way_down(places, layout)
    _add_way_up(places, layout)
    return places


def _add_way_down(places: Places, layout: UNetLayout) -> None:
    index, last = 1, len(layout.layers) - 1
    for block, count in enumerate(layout.layers):
        for layer in range(count):
            _add_layer(places, f"input_blocks.{index}", f"down_blocks.{block}", layer)
            index += 1
        if block != last:
            places[f"input_blocks.{index}.0.op"] = f"down_blocks.{block}.downsamplers.0.conv"
            index += 1


def _add_way_up(places: Places, layout: UNetLayout) -> None:
    index, last = 0, len(layout.layers) - 1
    for block, count in enumerate(reversed(layout.layers)):
        for layer in range(count + 1):
            _add_layer(places, f"output_blocks.{index}", f"up_blocks.{block}", layer)
            index += 1
        if block != last:
            position = 2 if layout.attended[last - block] else 1
            old = f"output_blocks.{index - 1}.{position}.conv"
            places[old] = f"up_blocks.{block}.upsamplers.0.conv"


def _add_layer(places: Places, old: str, new: str, layer: int) -> None:
    _add(places, f"{old}.0", f"{new}.resnets.{layer}", _UNET_RESNET)
    places[f"{old}.1"] = f"{new}.attentions.{layer}"


def vae_places(blocks: int, layers: int) -> Places:
    """Return the modules of the VAE, whose decoder counts its blocks from the finest."""
    places = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        for end in ("conv_in", "conv_out"):
            places[f"{half}.{end}"] = f"{half}.{end}"
        places[f"{half}.norm_out"] = f"{half}.conv_norm_out"
        for number in (1, 2):
            new = f"{half}.mid_block.resnets.{number - 1}"
            _add(places, f"{half}.mid.block_{number}", new, _VAE_RESNET)
        _add(places, f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0", _VAE_ATTENTION)
    for block in range(blocks):
        old, new = f"encoder.down.{block}", f"encoder.down_blocks.{block}"
        _add_vae_block(places, old, new, layers)
        places[f"{old}.downsample.conv"] = f"{new}.downsamplers.0.conv"
        old, new = f"decoder.up.{block}", f"decoder.up_blocks.{blocks - 1 - block}"
        _add_vae_block(places, old, new, layers + 1)
        places[f"{old}.upsample.conv"] = f"{new}.upsamplers.0.conv"
    return places


def _add_vae_block(places: Places, old: str, new: str, layers: int) -> None:
    for layer in range(layers):
        _add(places, f"{old}.block.{layer}", f"{new}.resnets.{layer}", _VAE_RESNET)


def openclip_places(layers: int, *, projects: bool) -> Places:
    """Return the modules of OpenCLIP's text tower of so many layers; the projection is optional."""
    places = dict(_OPENCLIP_ENDS)
    if projects:
        places["text_projection"] = "text_projection.weight"
    for layer in range(layers):
        old, new = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        _add(places, old, new, _OPENCLIP_LAYER)
    return places


def _add(places: Places, old: str, new: str, parts: Mapping[str, str]) -> None:
    places.update({f"{old}.{theirs}": f"{new}.{ours}" for theirs, ours in parts.items()})


def rename(name: str, places: Mapping[str, str]) -> str | None:
    """Return ``name`` with its longest known beginning translated; None if none is known."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        new = places.get(".".join(parts[:count]))
        if new is not None:
            return ".".join([new, *parts[count:]])
    return None
