"""Attention as Stable Diffusion's networks use it: blocks of a transformer over pixels.

The rule this module protects: keys and values of the text are computed once for a prompt and not at
every step. ``keys_values`` is apart from ``__call__`` for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import mlx.core as mx
from mlx import nn

from workers.diffusion.group_norm import GroupNorm
from workers.memory import on_gpu

KeysValues = tuple[mx.array, mx.array]

# Head widths for which MLX has fused attention on every GPU backend.
_FUSED = (64, 80, 128)

# The most bytes of scores that unfused attention holds at once; queries are taken in parts.
_SCORES = 256 * 2**20


class Attention(nn.Module):
    """Multi-head attention of ``width`` over a context of ``context_width`` (default: itself)."""

    def __init__(
        self,
        width: int,
        heads: int,
        context_width: int | None = None,
        *,
        bias: bool = False,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        context_width = context_width or width
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_width, width, bias=bias)
        self.to_v = nn.Linear(context_width, width, bias=bias)
        self.to_out = [nn.Linear(width, width)]
        self.heads = heads
        self.upcast = upcast

    def keys_values(self, context: mx.array) -> KeysValues:
        """Return keys and values of (batch, length, context_width), each split into heads."""
        return self._split(self.to_k(context)), self._split(self.to_v(context))

    def __call__(self, x: mx.array, context: KeysValues | None = None) -> mx.array:
        """Attend from (batch, length, width) to a context's keys and values, or to itself."""
        if "to_qkv" in self:
            queries, *itself = (self._split(part) for part in mx.split(self.to_qkv(x), 3, axis=-1))
            keys, values = itself
        else:
            queries = self._split(self.to_q(x))
            keys, values = context or self.keys_values(x)
        mixed = attend(queries, keys, values, upcast=self.upcast)
        merged = mixed.transpose(0, 2, 1, 3).reshape(x.shape)
        return self.to_out[0](merged)

    def fuse(self) -> None:
        """Make one matrix of the three projections of self-attention, if they are plain layers."""
        if "to_qkv" in self:
            return
        layers = [self.to_q, self.to_k, self.to_v]
        if any(type(layer) is not nn.Linear for layer in layers):
            return
        fused = nn.Linear(1, 1, bias="bias" in self.to_q)
        fused.weight = mx.concatenate([layer.weight for layer in layers])
        if "bias" in self.to_q:
            fused.bias = mx.concatenate([layer.bias for layer in layers])
        self.to_qkv = fused
        for name in ("to_q", "to_k", "to_v"):
            del self[name]

    def _split(self, x: mx.array) -> mx.array:
        batch, length, width = x.shape
        return x.reshape(batch, length, self.heads, width // self.heads).transpose(0, 2, 1, 3)


def attend(queries: mx.array, keys: mx.array, values: mx.array, *, upcast: bool) -> mx.array:
    """Scaled dot-product attention of (batch, heads, length, width); returns the queries' shape.

    ``upcast``: scores in float32 where the computation is not fused (fused scores always are).
    """
    scale = 1 / math.sqrt(queries.shape[-1])
    if on_gpu() and queries.shape[-1] in _FUSED:
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale)
    dtype = queries.dtype
    if upcast and dtype != mx.float32:
        queries, keys, values = (part.astype(mx.float32) for part in (queries, keys, values))
    return _in_parts(queries, keys, values, scale).astype(dtype)


def _in_parts(queries: mx.array, keys: mx.array, values: mx.array, scale: float) -> mx.array:
    """Attend for so many queries at a time that the scores stay within ``_SCORES`` bytes."""
    batch, heads, length, _ = queries.shape
    row_bytes = batch * heads * keys.shape[2] * queries.dtype.size
    size = max(1, _SCORES // row_bytes)
    if size >= length:
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale)
    parts: list[mx.array] = []
    for start in range(0, length, size):
        part = queries[:, :, start : start + size]
        if parts:
            # Not before the part ahead is done, or all scores would be held at once.
            (part,) = mx.depends([part], parts[-1:])
        parts.append(mx.fast.scaled_dot_product_attention(part, keys, values, scale=scale))
    return mx.concatenate(parts, axis=2)


class GEGLU(nn.Module):
    """A linear layer of which one half gates the other (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def __call__(self, x: mx.array) -> mx.array:
        """Return (…, inner) for (…, width)."""
        value, gate = mx.split(self.proj(x), 2, axis=-1)
        return value * nn.gelu(gate)


class FeedForward(nn.Module):
    """The block's two linear layers; index 1 of ``net`` is diffusers' dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = [GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)]

    def __call__(self, x: mx.array) -> mx.array:
        """Return the shape of ``x``."""
        return self.net[2](self.net[0](x))


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to the text, feed-forward; each normalised and added."""

    def __init__(
        self, width: int, heads: int, context_width: int, *, only_cross: bool, upcast: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        first_context = context_width if only_cross else None
        self.attn1 = Attention(width, heads, first_context, upcast=upcast)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context_width, upcast=upcast)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)
        self._only_cross = only_cross

    def text_attentions(self) -> Iterator[Attention]:
        """Yield the layers that attend to the text, in the order in which they are used."""
        if self._only_cross:
            yield self.attn1
        yield self.attn2

    def __call__(self, x: mx.array, texts: Iterator[KeysValues]) -> mx.array:
        """Apply the block to (batch, pixels, width), taking keys and values from ``texts``."""
        x = x + self.attn1(self.norm1(x), next(texts) if self._only_cross else None)
        x = x + self.attn2(self.norm2(x), next(texts))
        return x + self.ff(self.norm3(x))


class Transformer2DModel(nn.Module):
    """A transformer over the pixels of a feature map, with a shortcut around it."""

    def __init__(
        self,
        width: int,
        heads: int,
        context_width: int,
        depth: int,
        *,
        groups: int,
        linear: bool,
        only_cross: bool,
        upcast: bool,
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, width, 1e-6)
        self.proj_in = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = [
            BasicTransformerBlock(width, heads, context_width, only_cross=only_cross, upcast=upcast)
            for _ in range(depth)
        ]
        self.proj_out = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)

    def __call__(self, x: mx.array, texts: Iterator[KeysValues]) -> mx.array:
        """Apply the transformer to (batch, y, x, width)."""
        shape = x.shape
        hidden = self.proj_in(self.norm(x)).reshape(shape[0], -1, shape[-1])
        for block in self.transformer_blocks:
            hidden = block(hidden, texts)
        return x + self.proj_out(hidden.reshape(shape))


class PixelAttention(Attention):
    """The VAE's attention: one head over all pixels, normalised, with a shortcut."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width, 1, bias=True, upcast=True)
        self.group_norm = GroupNorm(groups, width, 1e-6)

    def over_pixels(self, x: mx.array) -> mx.array:
        """Apply it to (batch, y, x, width)."""
        rows = self.group_norm(x).reshape(x.shape[0], -1, x.shape[-1])
        return x + self(rows).reshape(x.shape)
