"""The configurations that a single-file checkpoint does not carry, told from its tensors' shapes.

The rule this module protects: what the shapes say is read from them, so that a checkpoint of any
size is itself; what they cannot say is one value of a family in ``FAMILIES``, as diffusers'
configurations of the released models have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from daemon.errors import ModelError
from workers.diffusion.single_file_names import UNetLayout
from workers.diffusion.tensor_files import Shape

Config = dict[str, Any]

_HEAD = 64  # width of an attention head, in SD 2.x, SDXL and all of CLIP's text encoders
_SIZES = 6  # numbers of SDXL's size conditioning


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A text encoder's place in a checkpoint.

    ``prefixes``: what its tensors' names begin with, the first one found counts. ``openclip``: it
    has OpenCLIP's names, activation and padding. ``skips_last``: its last layer is not used
    (SD 2.x takes the penultimate layer's output through the final normalisation, which is a tower
    of one layer less). ``projects``: its pooled output is projected and used.
    """

    prefixes: tuple[str, ...]
    openclip: bool
    skips_last: bool = False
    projects: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the shapes do not tell.

    ``encoders``: by their folders' names in diffusers. ``size``: pixels of a side of the training
    images; ``velocity_size``: the same of the models that predict velocity. ``heads``: of each
    attention layer; None means that each head has 64 channels. ``guesses_prediction``: releases
    that predict noise and velocity differ in their numbers alone.
    """

    name: str
    encoders: Mapping[str, Encoder]
    size: int
    velocity_size: int
    scaling: float
    heads: int | None = None
    guesses_prediction: bool = False
    upcast_vae: bool = False
    upcast_attention: bool = False
    zero_empty_negative: bool = False


_CLIP = Encoder(prefixes=("cond_stage_model.transformer.",), openclip=False)
_OPENCLIP = Encoder(
    prefixes=("cond_stage_model.model.", "conditioner.embedders.0.model."),
    openclip=True,
    skips_last=True,
)
_SDXL_CLIP = Encoder(prefixes=("conditioner.embedders.0.transformer.",), openclip=False)
_SDXL_OPENCLIP = Encoder(prefixes=("conditioner.embedders.1.model.",), openclip=True, projects=True)

FAMILIES = (
    Family(
        name="SDXL",
        encoders={"text_encoder": _SDXL_CLIP, "text_encoder_2": _SDXL_OPENCLIP},
        size=1024,
        velocity_size=1024,
        scaling=0.13025,
        upcast_vae=True,
        zero_empty_negative=True,
    ),
    Family(
        name="SD 2.x",
        encoders={"text_encoder": _OPENCLIP},
        size=512,
        velocity_size=768,
        scaling=0.18215,
        guesses_prediction=True,
        upcast_attention=True,
    ),
    Family(
        name="SD 1.x",
        encoders={"text_encoder": _CLIP},
        size=512,
        velocity_size=512,
        heads=8,
        scaling=0.18215,
    ),
)


def read_layout(source: str, shapes: Mapping[str, Shape]) -> UNetLayout:
    """Return the UNet's blocks, which end where a ``.0.op`` halves the resolution.

    Raises:
        ModelError: the layers of one block differ, as in models that were pruned.
    """
    blocks = _down_blocks(shapes)
    attended = [{f"input_blocks.{index}.1.norm.weight" in shapes for index in b} for b in blocks]
    for found in attended:
        if len(found) != 1:
            raise _unusual(source, "some layers of a block attend to the text and others do not")
    return UNetLayout(
        layers=tuple(len(block) for block in blocks),
        attended=tuple(next(iter(found)) for found in attended),
    )


def _down_blocks(shapes: Mapping[str, Shape]) -> list[list[int]]:
    """Return for each block the original's numbers of its layers."""
    count = _count(shapes, r"input_blocks\.(\d+)\.")
    blocks: list[list[int]] = [[]]
    for index in range(1, count):
        if f"input_blocks.{index}.0.op.weight" in shapes:
            blocks.append([])
        else:
            blocks[-1].append(index)
    return blocks


def unet_config(
    source: str, shapes: Mapping[str, Shape], layout: UNetLayout, family: Family, pooled: int
) -> Config:
    """Return diffusers' configuration of the UNet with these tensors.

    ``shapes``: by the original's names without the common beginning. ``pooled``: width of the
    projected text, from which the width of SDXL's embedded sizes follows.

    Raises:
        ModelError: the UNet is not built as the family's are.
    """
    widths = _widths(source, shapes)
    depths = _depths(source, shapes, layout)
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in layout.attended]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in layout.attended[::-1]]
    config = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": _shape(source, shapes, "out.2.weight")[0],
        "block_out_channels": widths,
        "down_block_types": down,
        "up_block_types": up,
        "layers_per_block": _same(list(layout.layers)),
        "transformer_layers_per_block": _same(depths),
        "attention_head_dim": family.heads or [max(1, width // _HEAD) for width in widths],
        "cross_attention_dim": _cross_width(source, shapes),
        "use_linear_projection": len(_shape(source, shapes, "middle_block.1.proj_in.weight")) == 2,
        "upcast_attention": family.upcast_attention,
        "norm_num_groups": 32,
    }
    return config | _added(source, shapes, pooled)


def _widths(source: str, shapes: Mapping[str, Shape]) -> list[int]:
    """Return the width of each block, which its last layer puts out."""
    lasts = [block[-1] for block in _down_blocks(shapes) if block]
    names = [f"input_blocks.{index}.0.out_layers.3.weight" for index in lasts]
    return [_shape(source, shapes, name)[0] for name in names]


def _depths(source: str, shapes: Mapping[str, Shape], layout: UNetLayout) -> list[int]:
    """Return the depth of each block's transformers; the middle has that of the last block."""
    blocks = _down_blocks(shapes)
    depths = [
        {_count(shapes, rf"input_blocks\.{index}\.1\.transformer_blocks\.(\d+)\.") for index in b}
        for b in blocks
    ]
    middle = _count(shapes, r"middle_block\.1\.transformer_blocks\.(\d+)\.")
    if not layout.attended[-1]:
        depths[-1] = {middle}
    if any(len(found) != 1 for found in depths) or depths[-1] != {middle} or not middle:
        raise _unusual(source, "the transformers of its blocks differ in depth")
    return [max(1, *found) for found in depths]


def _cross_width(source: str, shapes: Mapping[str, Shape]) -> int:
    name = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return _shape(source, shapes, name)[1]


def _added(source: str, shapes: Mapping[str, Shape], pooled: int) -> Config:
    """Return the settings of SDXL's conditioning on pooled text and sizes, if the UNet has it."""
    name = "label_emb.0.0.weight"
    if name not in shapes:
        return {}
    width = shapes[name][1]
    if not pooled or width <= pooled or (width - pooled) % _SIZES:
        raise _unusual(
            source, f"{name} takes {width} numbers; pooled text and six sizes of SDXL do not fit it"
        )
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": (width - pooled) // _SIZES,
        "projection_class_embeddings_input_dim": width,
    }


def vae_config(source: str, shapes: Mapping[str, Shape], family: Family) -> Config:
    """Return diffusers' configuration of the VAE with these tensors."""
    blocks, layers = count_vae(shapes)
    names = [f"encoder.down.{block}.block.0.conv2.weight" for block in range(blocks)]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": _shape(source, shapes, "encoder.conv_in.weight")[1],
        "out_channels": _shape(source, shapes, "decoder.conv_out.weight")[0],
        "latent_channels": _shape(source, shapes, "decoder.conv_in.weight")[1],
        "block_out_channels": [_shape(source, shapes, name)[0] for name in names],
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        "layers_per_block": layers,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "norm_num_groups": 32,
        "sample_size": family.size,
        "scaling_factor": family.scaling,
        "force_upcast": family.upcast_vae,
    }


def count_vae(shapes: Mapping[str, Shape]) -> tuple[int, int]:
    """Return the VAE's number of blocks, and of layers in a block of its encoder."""
    blocks = _count(shapes, r"encoder\.down\.(\d+)\.")
    return blocks, _count(shapes, r"encoder\.down\.0\.block\.(\d+)\.")


def clip_config(source: str, weights: Mapping[str, Shape], encoder: Encoder) -> Config:
    """Return transformers' configuration of a text encoder whose tensors have its names."""
    vocabulary, width = _shape(source, weights, "embeddings.token_embedding.weight")
    kind = "CLIPTextModelWithProjection" if encoder.projects else "CLIPTextModel"
    config = {
        "architectures": [kind],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": _shape(source, weights, "encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": _count(weights, r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(1, width // _HEAD),
        "max_position_embeddings": _shape(source, weights, "embeddings.position_embedding.weight")[
            0
        ],
        "hidden_act": "gelu" if encoder.openclip else "quick_gelu",
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }
    if encoder.projects:
        config["projection_dim"] = _shape(source, weights, "text_projection.weight")[0]
    return config


def count_layers(names: Iterable[str]) -> int:
    """Return how many layers OpenCLIP's text tower has in a checkpoint."""
    return _count(names, r"transformer\.resblocks\.(\d+)\.")


def _count(names: Iterable[str], pattern: str) -> int:
    """Return one more than the largest number that ``pattern`` finds at the start of a name."""
    compiled = re.compile(pattern)
    return 1 + max((int(match[1]) for name in names if (match := compiled.match(name))), default=-1)


def _same(values: list[int]) -> int | list[int]:
    """Return one number for all blocks if they agree, as diffusers writes it."""
    return values[0] if len(set(values)) == 1 else values


def _shape(source: str, shapes: Mapping[str, Shape], name: str) -> Shape:
    if name not in shapes:
        raise ModelError(
            f"{source} lacks {name}",
            remedy="download the model again; the file is not a whole checkpoint",
        )
    return shapes[name]


def _unusual(source: str, reason: str) -> ModelError:
    return ModelError(
        f"{source} is not built like the released Stable Diffusion UNets: {reason}",
        remedy="use the model's folder in diffusers' layout",
    )
