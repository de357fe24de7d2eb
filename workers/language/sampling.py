"""Choosing the next token.

The rule this module protects: the choice depends on the seed, the row and the options, and on
nothing else that runs in this process. Random numbers come from a key of the answer's own, never
from MLX's global state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

Sampler = Callable[[mx.array], mx.array]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Sampling options as mlx-lm means them; ``temp`` 0 takes the most likely token."""

    temp: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


def make_sampler(options: Sampling, *, seed: int, row: int = 0) -> Sampler:
    """Return a function from logits (1, vocabulary) to the next token's id (1,).

    The filters and their order are mlx-lm's: top-p, min-p, top-k, then the temperature.
    ``seed`` and ``row`` are the two words, below 2**32 each, of the answer's own random key.
    """
    if options.temp == 0:
        return lambda logits: mx.argmax(logits, axis=-1)
    key = mx.random.key((seed << 32) | row)

    def sample(logits: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        filtered = _filtered(logits - mx.logsumexp(logits, keepdims=True), options)
        return mx.random.categorical(filtered * (1 / options.temp), key=now)

    return sample


def _filtered(logprobs: mx.array, options: Sampling) -> mx.array:
    if 0 < options.top_p < 1:
        logprobs = apply_top_p(logprobs, options.top_p)
    if options.min_p > 0:
        logprobs = apply_min_p(logprobs, options.min_p, 1)
    if 0 < options.top_k < logprobs.shape[-1]:
        logprobs = apply_top_k(logprobs, options.top_k)
    return logprobs
