"""Configurations of the networks, read from diffusers' and transformers' JSON.

The rule this module protects: a setting that these networks do not follow is refused by name. A
picture made by ignoring it would be wrong without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from workers.diffusion.settings import Counts, Settings, is_whole

_CROSS_DOWN, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_CROSS_UP, _UP = "CrossAttnUpBlock2D", "UpBlock2D"
_ACTIVATIONS = ("silu", "swish", "gelu", "mish")

# More is no network: a damaged file must not have one built for hours.
_MOST_LAYERS, _MOST_BLOCKS = 128, 12

Layers = tuple[Counts, ...]


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """``UNet2DConditionModel``. Tuples hold a value for each block, from the finest resolution.

    ``heads``: attention heads (diffusers calls them ``attention_head_dim``, see its issue 2011).
    ``transformer_layers``: for each block the depth of each of its transformers; ``up_…`` in the
    order of the way up, finest last, with one more transformer a block.
    """

    in_channels: int
    out_channels: int
    sample_size: tuple[int, int]
    channels: Counts
    down_types: tuple[str, ...]
    up_types: tuple[str, ...]
    mid_type: str | None
    layers: Counts
    heads: Counts
    cross_dims: Counts
    transformer_layers: Layers
    up_transformer_layers: Layers
    groups: int
    eps: float
    activation: str
    only_cross: tuple[bool, ...]
    linear_projection: bool
    upcast_attention: bool
    downsample_padding: int
    kernel_in: int
    kernel_out: int
    flip_sin_to_cos: bool
    freq_shift: int
    center_input: bool
    time_dim: int
    time_cond_dim: int | None
    text_time: tuple[int, int] | None

    @classmethod
    def read(cls, source: str, data: Mapping[str, Any]) -> UNetConfig:
        """Read diffusers' ``unet/config.json``.

        Raises:
            ModelError: names the setting, its value and what can be used.
        """
        settings = Settings(source, data)
        _refuse_other_unets(settings)
        channels = _channels(settings, (320, 640, 1280, 1280))
        blocks = len(channels)
        down = settings.words(
            "down_block_types", (*(_CROSS_DOWN,) * 3, _DOWN), (_CROSS_DOWN, _DOWN)
        )
        up = settings.words("up_block_types", (_UP, *(_CROSS_UP,) * 3), (_CROSS_UP, _UP))
        for key, types in (("down_block_types", down), ("up_block_types", up)):
            if len(types) != blocks:
                raise settings.refused(key, f"{blocks} blocks, as block_out_channels has")
        layers = settings.counts("layers_per_block", 2, blocks, most=_MOST_LAYERS)
        depths = _depths(settings, "transformer_layers_per_block", layers)
        only_cross = settings.flags("only_cross_attention", blocks)
        config = cls(
            in_channels=settings.whole("in_channels", 4),
            out_channels=settings.whole("out_channels", 4),
            sample_size=_pair(settings, "sample_size", 64),
            channels=channels,
            down_types=down,
            up_types=up,
            mid_type=_mid_type(settings),
            layers=layers,
            heads=settings.counts("attention_head_dim", 8, blocks),
            cross_dims=settings.counts("cross_attention_dim", 1280, blocks),
            transformer_layers=depths,
            up_transformer_layers=_up_depths(settings, depths, layers),
            groups=settings.whole("norm_num_groups", 32),
            eps=settings.number("norm_eps", 1e-5),
            activation=settings.choice("act_fn", "silu", _ACTIVATIONS),
            only_cross=only_cross,
            linear_projection=settings.flag("use_linear_projection", False),
            upcast_attention=settings.flag("upcast_attention", False),
            downsample_padding=settings.whole("downsample_padding", 1, least=0, most=1),
            kernel_in=settings.whole("conv_in_kernel", 3),
            kernel_out=settings.whole("conv_out_kernel", 3),
            flip_sin_to_cos=settings.flag("flip_sin_to_cos", True),
            freq_shift=settings.whole("freq_shift", 0, least=0, most=1),
            center_input=settings.flag("center_input_sample", False),
            time_dim=settings.whole("time_embedding_dim", 4 * channels[0]),
            time_cond_dim=_optional_width(settings, "time_cond_proj_dim"),
            text_time=_text_time(settings),
        )
        settings.finish()
        config.check(settings)
        return config

    def check(self, settings: Settings) -> None:
        """Refuse widths that groups and heads do not divide."""
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % self.groups:
                raise settings.refused("norm_num_groups", f"a divisor of {width}")
            if width % heads:
                raise settings.refused("attention_head_dim", f"a divisor of {width}")


def _refuse_other_unets(settings: Settings) -> None:
    settings.fixed(
        addition_embed_type_num_heads=64,
        attention_type="default",
        class_embed_type=None,
        class_embeddings_concat=False,
        cross_attention_norm=None,
        dual_cross_attention=False,
        encoder_hid_dim=None,
        encoder_hid_dim_type=None,
        mid_block_scale_factor=1,
        num_attention_heads=None,
        num_class_embeds=None,
        resnet_out_scale_factor=1.0,
        resnet_skip_time_act=False,
        resnet_time_scale_shift="default",
        time_embedding_act_fn=None,
        time_embedding_type="positional",
        timestep_post_act=None,
    )
    # The middle's attention is always to itself first, whatever its own setting says.
    settings.ignored("dropout", "mid_block_only_cross_attention")


def _channels(settings: Settings, default: Counts) -> Counts:
    value = settings.take("block_out_channels", default)
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= _MOST_BLOCKS:
        raise settings.refused("block_out_channels", f"a list of 1 to {_MOST_BLOCKS} widths")
    return settings.counts("block_out_channels", default, len(value))


def _optional_width(settings: Settings, key: str) -> int | None:
    return None if settings.take(key, None) is None else settings.whole(key)


def _pair(settings: Settings, key: str, default: int) -> tuple[int, int]:
    """Return height and width, of which a single number is both."""
    height, width = settings.counts(key, default, 2)
    return height, width


def _mid_type(settings: Settings) -> str | None:
    names = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", "none")
    default = "none" if settings.is_null("mid_block_type") else names[0]
    chosen = settings.choice("mid_block_type", default, names)
    return None if chosen == "none" else chosen


def _depths(settings: Settings, key: str, layers: Counts) -> Layers:
    """Return each transformer's depth, from one number, one a block, or one a transformer."""
    value = settings.take(key, 1)
    blocks = [value] * len(layers) if isinstance(value, int) else value
    if not isinstance(blocks, list | tuple) or len(blocks) != len(layers):
        raise settings.refused(key, f"a whole number or a list of {len(layers)}")
    return tuple(
        _block_depths(settings, key, item, count)
        for item, count in zip(blocks, layers, strict=True)
    )


def _block_depths(settings: Settings, key: str, item: Any, count: int) -> Counts:
    values = [item] * count if isinstance(item, int) else item
    listed = isinstance(values, list | tuple) and len(values) == count
    if not listed or not all(is_whole(depth, _MOST_LAYERS) for depth in values):
        wanted = f"whole numbers from 1 to {_MOST_LAYERS}, or lists of {count} for a block"
        raise settings.refused(key, wanted)
    return tuple(values)


def _up_depths(settings: Settings, depths: Layers, layers: Counts) -> Layers:
    """Return the depths on the way up; unless said, those of the way down, reversed."""
    key = "reverse_transformer_layers_per_block"
    counts = tuple(count + 1 for count in reversed(layers))
    given = settings.take(key, None)
    if given is not None:
        return _depths(settings, key, counts)
    if any(len(set(block)) > 1 for block in depths):
        raise settings.refused(key, "given where transformers of one block differ in depth")
    return tuple((block[0],) * count for block, count in zip(reversed(depths), counts, strict=True))


def _text_time(settings: Settings) -> tuple[int, int] | None:
    """Return (width of one embedded size, width of all) for SDXL's added conditioning."""
    kind = settings.choice("addition_embed_type", "none", ("none", "text_time"))
    if kind == "none":
        settings.ignored("addition_time_embed_dim", "projection_class_embeddings_input_dim")
        return None
    return (
        settings.whole("addition_time_embed_dim"),
        settings.whole("projection_class_embeddings_input_dim"),
    )


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """``AutoencoderKL``. Latents are ``(moments - shift) * scaling`` of the encoder's mean."""

    in_channels: int
    out_channels: int
    latent_channels: int
    channels: Counts
    layers: int
    groups: int
    activation: str
    scaling: float
    shift: float
    force_upcast: bool
    quant_conv: bool
    post_quant_conv: bool
    mid_attention: bool

    @property
    def factor(self) -> int:
        """Pixels to one latent in each direction."""
        return int(2 ** (len(self.channels) - 1))

    @classmethod
    def read(cls, source: str, data: Mapping[str, Any]) -> VaeConfig:
        """Read diffusers' ``vae/config.json``.

        Raises:
            ModelError: names the setting, its value and what can be used.
        """
        settings = Settings(source, data)
        settings.fixed(latents_mean=None, latents_std=None)
        settings.ignored("sample_size")
        channels = _channels(settings, (64,))
        blocks = len(channels)
        for key, kind in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D")):
            if len(settings.words(f"{key}_block_types", (kind,), (kind,))) != blocks:
                raise settings.refused(f"{key}_block_types", f"{blocks} times {kind}")
        config = cls(
            in_channels=settings.whole("in_channels", 3),
            out_channels=settings.whole("out_channels", 3),
            latent_channels=settings.whole("latent_channels", 4),
            channels=channels,
            layers=settings.whole("layers_per_block", 1, most=_MOST_LAYERS),
            groups=settings.whole("norm_num_groups", 32),
            activation=settings.choice("act_fn", "silu", _ACTIVATIONS),
            scaling=settings.number("scaling_factor", 0.18215),
            shift=settings.real("shift_factor", 0.0),
            force_upcast=settings.flag("force_upcast", True),
            quant_conv=settings.flag("use_quant_conv", True),
            post_quant_conv=settings.flag("use_post_quant_conv", True),
            mid_attention=settings.flag("mid_block_add_attention", True),
        )
        settings.finish()
        if any(width % config.groups for width in channels):
            raise settings.refused("norm_num_groups", f"a divisor of each of {channels}")
        return config


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """``CLIPTextModel``; ``projection`` is the width of the projected text, None without one."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    positions: int
    activation: Literal["quick_gelu", "gelu"]
    eps: float
    eos: int
    projection: int | None

    @classmethod
    def read(cls, source: str, data: Mapping[str, Any], *, projects: bool) -> ClipConfig:
        """Read transformers' ``text_encoder/config.json``; ``projects``: it has a projection.

        Raises:
            ModelError: names the setting, its value and what can be used.
        """
        settings = Settings(source, data)
        settings.choice("model_type", "clip_text_model", ("clip_text_model", "clip"))
        activation = settings.choice("hidden_act", "quick_gelu", ("quick_gelu", "gelu"))
        config = cls(
            vocabulary=settings.whole("vocab_size", 49408),
            width=settings.whole("hidden_size", 512),
            inner=settings.whole("intermediate_size", 2048),
            layers=settings.whole("num_hidden_layers", 12, most=_MOST_LAYERS),
            heads=settings.whole("num_attention_heads", 8),
            positions=settings.whole("max_position_embeddings", 77),
            activation="gelu" if activation == "gelu" else "quick_gelu",
            eps=settings.number("layer_norm_eps", 1e-5),
            eos=settings.whole("eos_token_id", 49407, least=0),
            projection=settings.whole("projection_dim", 512) if projects else None,
        )
        if config.width % config.heads:
            raise settings.refused("num_attention_heads", f"a divisor of {config.width}")
        return config
