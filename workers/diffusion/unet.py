"""The network that predicts noise: diffusers' ``UNet2DConditionModel`` for SD 1.x, 2.x and SDXL.

The rule this module protects: what does not change from step to step is computed once. The text's
keys and values (``read_text``) and the projected times of all steps (``read_times``) are made
before the loop, and ``denoise`` is what remains; ``__call__`` is the three together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx import nn

from workers.diffusion.attention import Attention, KeysValues, Transformer2DModel
from workers.diffusion.configs import UNetConfig
from workers.diffusion.group_norm import GroupNorm
from workers.diffusion.layers import (
    ACTIVATIONS,
    Downsample2D,
    ResnetBlock2D,
    TimestepEmbedding,
    Upsample2D,
    sinusoids,
)


@dataclass(frozen=True, kw_only=True)
class Added:
    """SDXL's further conditions (Podell et al. 2023, arXiv:2307.01952, section 2.2).

    ``pooled``: (batch, width) pooled text; ``sizes``: (batch, 6), original height and width, top
    and left of the crop, target height and width, in pixels.
    """

    pooled: mx.array
    sizes: mx.array


class UNet2DConditionModel(nn.Module):
    """Predicts noise (or velocity) for latents (batch, y, x, channels), given time and text."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        widths = config.channels
        kernel = config.kernel_in
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], kernel, padding=(kernel - 1) // 2)
        self.time_embedding = TimestepEmbedding(
            widths[0], config.time_dim, config.activation, config.time_cond_dim
        )
        if config.text_time is not None:
            self.add_embedding = TimestepEmbedding(config.text_time[1], config.time_dim)
        self.down_blocks = [_DownBlock(config, index) for index in range(len(widths))]
        if config.mid_type is not None:
            self.mid_block = _MidBlock(config)
        self.up_blocks = [_UpBlock(config, index) for index in range(len(widths))]
        self.conv_norm_out = GroupNorm(config.groups, widths[0], config.eps)
        kernel = config.kernel_out
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, kernel, padding=(kernel - 1) // 2)
        self.config = config
        self._act = ACTIVATIONS[config.activation]

    @property
    def dtype(self) -> mx.Dtype:
        """The type in which the network computes."""
        return self.conv_norm_out.weight.dtype

    def __call__(
        self,
        latents: mx.array,
        timesteps: mx.array,
        context: mx.array,
        added: Added | None = None,
    ) -> mx.array:
        """Predict for latents (batch, y, x, channels) at timesteps (batch,) or (1,).

        ``context``: the encoded text, (batch, length, width).
        """
        times = self.read_times(timesteps, added)
        return self.denoise(latents, times, self.read_text(context))

    def read_times(
        self, timesteps: mx.array, added: Added | None = None, guidance: mx.array | None = None
    ) -> list[mx.array]:
        """Return what each resnet adds for timesteps (n,), in order: (n, 1, 1, channels) each.

        ``guidance``: (n, time_cond_dim), for models distilled with guidance.
        """
        config = self.config
        embedded = sinusoids(
            timesteps,
            config.channels[0],
            flip_sin_to_cos=config.flip_sin_to_cos,
            freq_shift=config.freq_shift,
        )
        hidden = self.time_embedding(embedded.astype(self.dtype), guidance)
        if added is not None:
            hidden = hidden + self._embed_added(added)
        return [resnet.project_time(hidden) for resnet in self._resnets()]

    def read_text(self, context: mx.array) -> list[KeysValues]:
        """Return keys and values of (batch, length, width) for every layer that wants them."""
        return [layer.keys_values(context) for layer in self._text_attentions()]

    def denoise(
        self, latents: mx.array, times: Sequence[mx.array], texts: Sequence[KeysValues]
    ) -> mx.array:
        """Predict for latents with the results of ``read_times`` and ``read_text``."""
        time, text = iter(times), iter(texts)
        if self.config.center_input:
            latents = 2 * latents - 1
        hidden = self.conv_in(latents)
        skips = [hidden]
        for down in self.down_blocks:
            hidden = down(hidden, time, text, skips)
        if "mid_block" in self:
            hidden = self.mid_block(hidden, time, text)
        for up in self.up_blocks:
            hidden = up(hidden, time, text, skips)
        return self.conv_out(self.conv_norm_out(hidden, self._act))

    def fuse(self) -> None:
        """Merge the projections of self-attention, for fewer and larger multiplications."""
        for layer in self._self_attentions():
            layer.fuse()

    def fused_bytes(self) -> int:
        """Return the memory that ``fuse`` takes beside the kept weights."""
        return sum(
            projection.weight.nbytes
            for layer in self._self_attentions()
            for name, projection in layer.items()
            if name in {"to_q", "to_k", "to_v"} and "weight" in projection
        )

    def _self_attentions(self) -> Iterator[Attention]:
        """Yield the layers that attend to the pixels themselves."""
        texts = {id(layer) for layer in self._text_attentions()}
        for module in self.modules():
            if isinstance(module, Attention) and id(module) not in texts:
                yield module

    def _embed_added(self, added: Added) -> mx.array:
        """Return the embedding of SDXL's pooled text and sizes, (batch, time_dim)."""
        width, _ = self.config.text_time or (0, 0)
        sizes = sinusoids(
            added.sizes.reshape(-1),
            width,
            flip_sin_to_cos=self.config.flip_sin_to_cos,
            freq_shift=self.config.freq_shift,
        ).reshape(added.sizes.shape[0], added.sizes.shape[1] * width)
        joined = mx.concatenate(
            [added.pooled.astype(self.dtype), sizes.astype(self.dtype)], axis=-1
        )
        return self.add_embedding(joined)

    def _blocks(self) -> Iterator[_Block]:
        yield from self.down_blocks
        if "mid_block" in self:
            yield self.mid_block
        yield from self.up_blocks

    def _resnets(self) -> Iterator[ResnetBlock2D]:
        """Yield every resnet in the order of their use."""
        for block in self._blocks():
            yield from block.resnets

    def _text_attentions(self) -> Iterator[Attention]:
        """Yield the layers that attend to the text in the order of their use."""
        for block in self._blocks():
            for transformer in block.get("attentions", ()):
                for inner in transformer.transformer_blocks:
                    yield from inner.text_attentions()


class _Block(nn.Module):
    """What the blocks share: resnets and, where the block has them, transformers."""

    resnets: list[ResnetBlock2D]
    attentions: list[Transformer2DModel]

    def _resnet(self, config: UNetConfig, width_in: int, width: int) -> ResnetBlock2D:
        return ResnetBlock2D(
            width_in,
            width,
            groups=config.groups,
            eps=config.eps,
            activation=config.activation,
            time_dim=config.time_dim,
        )

    def _transformer(
        self, config: UNetConfig, block: int, depth: int, *, only_cross: bool
    ) -> Transformer2DModel:
        return Transformer2DModel(
            config.channels[block],
            config.heads[block],
            config.cross_dims[block],
            depth,
            groups=config.groups,
            linear=config.linear_projection,
            only_cross=only_cross,
            upcast=config.upcast_attention,
        )


class _DownBlock(_Block):
    def __init__(self, config: UNetConfig, index: int) -> None:
        super().__init__()
        width, before = config.channels[index], config.channels[max(0, index - 1)]
        self.resnets = [
            self._resnet(config, width if layer else before, width)
            for layer in range(config.layers[index])
        ]
        if config.down_types[index].startswith("CrossAttn"):
            self.attentions = [
                self._transformer(config, index, depth, only_cross=config.only_cross[index])
                for depth in config.transformer_layers[index]
            ]
        if index < len(config.channels) - 1:
            self.downsamplers = [Downsample2D(width, config.downsample_padding)]

    def __call__(
        self,
        x: mx.array,
        times: Iterator[mx.array],
        texts: Iterator[KeysValues],
        skips: list[mx.array],
    ) -> mx.array:
        for layer, resnet in enumerate(self.resnets):
            x = resnet(x, next(times))
            if "attentions" in self:
                x = self.attentions[layer](x, texts)
            skips.append(x)
        if "downsamplers" in self:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x


class _MidBlock(_Block):
    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width, last = config.channels[-1], len(config.channels) - 1
        attends = config.mid_type == "UNetMidBlock2DCrossAttn"
        self.resnets = [self._resnet(config, width, width) for _ in range(2 if attends else 1)]
        if attends:
            depth = config.transformer_layers[-1][0]
            self.attentions = [self._transformer(config, last, depth, only_cross=False)]

    def __call__(
        self, x: mx.array, times: Iterator[mx.array], texts: Iterator[KeysValues]
    ) -> mx.array:
        x = self.resnets[0](x, next(times))
        if "attentions" in self:
            x = self.attentions[0](x, texts)
            x = self.resnets[1](x, next(times))
        return x


class _UpBlock(_Block):
    """Block ``index`` of the way up, of which 0 is the coarsest."""

    def __init__(self, config: UNetConfig, index: int) -> None:
        super().__init__()
        blocks = len(config.channels)
        block = blocks - 1 - index
        width = config.channels[block]
        before = config.channels[min(block + 1, blocks - 1)]
        count = config.layers[block] + 1
        self.resnets = [
            self._resnet(
                config,
                (width if layer else before) + self._skip(config, block, last=layer == count - 1),
                width,
            )
            for layer in range(count)
        ]
        if config.up_types[index].startswith("CrossAttn"):
            self.attentions = [
                self._transformer(config, block, depth, only_cross=config.only_cross[block])
                for depth in config.up_transformer_layers[index]
            ]
        if block:
            self.upsamplers = [Upsample2D(width)]

    @staticmethod
    def _skip(config: UNetConfig, block: int, *, last: bool) -> int:
        """Return the width of the skip connection: the last one is the finer block's."""
        return config.channels[max(0, block - 1)] if last else config.channels[block]

    def __call__(
        self,
        x: mx.array,
        times: Iterator[mx.array],
        texts: Iterator[KeysValues],
        skips: list[mx.array],
    ) -> mx.array:
        for layer, resnet in enumerate(self.resnets):
            x = resnet(mx.concatenate([x, skips.pop()], axis=-1), next(times))
            if "attentions" in self:
                x = self.attentions[layer](x, texts)
        if "upsamplers" in self:
            _, height, width, _ = skips[-1].shape
            x = self.upsamplers[0](x, (height, width))
        return x
