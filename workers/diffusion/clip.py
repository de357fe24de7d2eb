"""CLIP's text encoder (Radford et al. 2021, arXiv:2103.00020), as Stable Diffusion uses it.

The rule this module protects: everything a family reads of a prompt comes out of one pass, and each
under its own name: which layer it is, and whether it is normalised or projected, is never guessed.

Parameter names are those of transformers' ``CLIPTextModel`` without the prefix ``text_model.``;
a projection is ``text_projection.weight`` as in ``CLIPTextModelWithProjection``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
from mlx import nn

from workers.diffusion.configs import ClipConfig

# Before transformers' pull request 24773 configurations gave this number, whatever the vocabulary.
_OLD_EOS = 2


@dataclass(frozen=True, kw_only=True)
class TextOutput:
    """What the encoder made of (batch, length) tokens.

    ``last``: the last layer, normalised; ``penultimate``: the one before it, not normalised; both
    (batch, length, width). ``pooled``: ``last`` at the end token, projected if the model projects.
    """

    last: mx.array
    penultimate: mx.array
    pooled: mx.array


class ClipTextModel(nn.Module):
    """A causal transformer over tokens."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=config.eps)
        if config.projection is not None:
            self.text_projection = nn.Linear(config.width, config.projection, bias=False)
        self.config = config

    def __call__(self, tokens: mx.array) -> TextOutput:
        """Encode tokens of shape (batch, length), each row with an end token."""
        hidden = self.embeddings(tokens)
        length = tokens.shape[1]
        mask = nn.MultiHeadAttention.create_additive_causal_mask(length, hidden.dtype)
        penultimate = hidden
        for layer in self.encoder.layers:
            penultimate, hidden = hidden, layer(hidden, mask)
        last = self.final_layer_norm(hidden)
        pooled = last[mx.arange(tokens.shape[0]), self._ends(tokens)]
        if "text_projection" in self:
            pooled = self.text_projection(pooled)
        return TextOutput(last=last, penultimate=penultimate, pooled=pooled)

    def _ends(self, tokens: mx.array) -> mx.array:
        """Return the place of each row's first end token, which is CLIP's largest number."""
        if self.config.eos == _OLD_EOS:
            return mx.argmax(tokens, axis=-1)
        return mx.argmax(tokens == self.config.eos, axis=-1)


class _Embeddings(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.positions, config.width)

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class _Encoder(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = [_Layer(config) for _ in range(config.layers)]


class _Layer(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.self_attn = _SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = _Mlp(config)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        x = x + self.self_attn(self.layer_norm1(x), mask)
        return x + self.mlp(self.layer_norm2(x))


class _SelfAttention(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width = config.width
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self._heads = config.heads

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        batch, length, width = x.shape
        split = (batch, length, self._heads, width // self._heads)
        queries, keys, values = (
            project(x).reshape(split).transpose(0, 2, 1, 3)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=split[-1] ** -0.5, mask=mask
        )
        return self.out_proj(mixed.transpose(0, 2, 1, 3).reshape(x.shape))


def _quick_gelu(x: mx.array) -> mx.array:
    """Sigmoid approximation of GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2)."""
    return x * mx.sigmoid(1.702 * x)


class _Mlp(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.inner)
        self.fc2 = nn.Linear(config.inner, config.width)
        activation: Callable[[mx.array], mx.array] = (
            _quick_gelu if config.activation == "quick_gelu" else nn.gelu
        )
        self._act = activation

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc2(self._act(self.fc1(x)))
