"""The tiny networks whose outputs are kept: each has a feature of a real family, or an odd one.

Arguments are those of diffusers' and transformers' classes; what is not named has their default.
"""

from __future__ import annotations

from typing import Any

Arguments = dict[str, Any]

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


def unet(channels: tuple[int, ...], down: tuple[str, ...], **others: Any) -> Arguments:
    """Return a UNet's arguments; its way up mirrors its way down.

    Groups of a few channels: of one channel, a norm would undo what the timestep adds.
    """
    up = tuple(kind.replace("Down", "Up") for kind in reversed(down))
    plain: Arguments = {"sample_size": 16, "layers_per_block": 1, "norm_num_groups": 4}
    plain |= {"cross_attention_dim": 24}
    blocks: Arguments = {"block_out_channels": channels, "down_block_types": down}
    return plain | blocks | {"up_block_types": up} | others


SDXL_TIMES: Arguments = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 20 + 6 * 8,
    "use_linear_projection": True,
    "cross_attention_dim": 24 + 32,
}

# Stable Diffusion 1: attention_head_dim 8 is the number of heads, whatever the width.
_SD1 = unet((16, 32, 32, 32), (CROSS, CROSS, CROSS, PLAIN), layers_per_block=2)
# Stable Diffusion 2: heads for each block, linear projections.
_SD2 = unet(
    (16, 32, 32, 32),
    (CROSS, CROSS, CROSS, PLAIN),
    attention_head_dim=(2, 4, 8, 8),
    use_linear_projection=True,
    cross_attention_dim=32,
)
# SDXL: no attention at the finest level, deeper transformers below.
_SDXL = unet(
    (16, 32, 32),
    (PLAIN, CROSS, CROSS),
    layers_per_block=2,
    attention_head_dim=(2, 4, 8),
    transformer_layers_per_block=(1, 2, 3),
    **SDXL_TIMES,
)

_ODD = unet((24, 40, 56), (CROSS, PLAIN, CROSS), norm_num_groups=8, attention_head_dim=(3, 5, 7))
_PAIR = unet((32, 64), (CROSS, PLAIN), norm_num_groups=8)

UNETS: dict[str, Arguments] = {
    "sd1": _SD1,
    "sd2": _SD2,
    "sdxl": _SDXL,
    # One whole number for the depth, as diffusers writes it when all blocks have the same.
    "sdxl-integer-depth": _SDXL | {"transformer_layers_per_block": 2, "layers_per_block": 1},
    # SSD-1B: transformers of one block differ in depth, the middle has no attention.
    "sdxl-distilled": _SDXL
    | {
        "transformer_layers_per_block": (1, (2, 1), (1, 3)),
        "reverse_transformer_layers_per_block": ((1, 2, 1), (2, 1, 1), 1),
        "mid_block_type": "UNetMidBlock2D",
    },
    # Widths that are no power of two, other groups, blocks of different length.
    "odd-widths": _ODD | {"layers_per_block": (1, 3, 2), "norm_eps": 1e-6},
    "no-attention": unet((32, 32, 64), (PLAIN,) * 3, mid_block_type="UNetMidBlock2D"),
    "no-middle": unet((32, 48, 64), (CROSS,) * 3, mid_block_type=None),
    "one-block": unet((32,), (CROSS,)),
    "upcast-attention": _PAIR | {"upcast_attention": True},
    "centered": _PAIR | {"center_input_sample": True},
    "cosine-last": _PAIR | {"flip_sin_to_cos": False, "freq_shift": 1},
    "other-padding": _PAIR | {"downsample_padding": 0},
    "only-cross": unet(
        (64, 128), (CROSS, CROSS), norm_num_groups=32, only_cross_attention=(True, False)
    ),
    "two-contexts": unet((32, 64), (CROSS, CROSS), cross_attention_dim=(24, 24)),
    "inpainting": _PAIR | {"in_channels": 9},
    # Consistency models that were told the guidance scale while they were distilled.
    "guidance-embedding": _PAIR | {"time_cond_proj_dim": 16},
    "gelu": _PAIR | {"act_fn": "gelu", "time_embedding_dim": 48},
    "mish": _PAIR | {"act_fn": "mish"},
    "other-kernels": _PAIR | {"conv_in_kernel": 1, "conv_out_kernel": 5, "out_channels": 8},
}


def vae(channels: tuple[int, ...], **others: Any) -> Arguments:
    """Return the arguments of a VAE that has len(channels) levels."""
    down = ("DownEncoderBlock2D",) * len(channels)
    up = ("UpDecoderBlock2D",) * len(channels)
    blocks: Arguments = {"down_block_types": down, "up_block_types": up}
    return (
        {"block_out_channels": channels, "layers_per_block": 1, "sample_size": 64} | blocks | others
    )


VAES: dict[str, Arguments] = {
    "sd": vae((32, 32, 32, 64), norm_num_groups=32),
    "sdxl": vae((32, 32, 32, 64), layers_per_block=2, scaling_factor=0.13025, force_upcast=True),
    "odd-widths": vae((24, 48, 72), norm_num_groups=8, layers_per_block=2),
    "no-quant-conv": vae(
        (16, 32),
        norm_num_groups=4,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        force_upcast=False,
    ),
    "no-attention": vae((32, 32, 32), mid_block_add_attention=False),
    "one-level": vae((32,), act_fn="gelu"),
}

VOCABULARY = 700


def clip(width: int, **others: Any) -> Arguments:
    """Return a text encoder's arguments; the two last tokens begin and end a text."""
    plain: Arguments = {"hidden_size": width, "intermediate_size": 3 * width}
    plain |= {"num_attention_heads": 4, "num_hidden_layers": 3, "vocab_size": VOCABULARY}
    tokens = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": 1}
    return plain | tokens | others


# "projects" chooses CLIPTextModelWithProjection.
ENCODERS: dict[str, Arguments] = {
    # Before transformers 4.31 every configuration said 0 and 2: the text ends at its highest token.
    "sd1": clip(24, bos_token_id=0, eos_token_id=2, hidden_act="quick_gelu"),
    "sd2": clip(32, hidden_act="gelu", num_hidden_layers=4, projection_dim=16),
    "sdxl-1": clip(24, hidden_act="quick_gelu"),
    "sdxl-2": clip(32, hidden_act="gelu", projection_dim=20, projects=True),
    "projection-by-highest-token": clip(
        32, hidden_act="gelu", eos_token_id=2, projection_dim=20, projects=True
    ),
    # A text that ends at a token which is not the highest.
    "end-inside": clip(32, eos_token_id=600, projection_dim=12, projects=True),
    "odd": clip(30, num_attention_heads=3, layer_norm_eps=1e-6, max_position_embeddings=40),
}
