"""What any source of an image model gives: configurations and tensors under diffusers' names.

The rule this module protects: a folder and a single-file checkpoint become the same thing before
anything is built, so that strictness and networks exist once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from workers.diffusion.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Component:
    """One network: its configuration as diffusers or transformers write it, and its tensors.

    ``weights`` are in PyTorch's layouts (convolutions: out, in, height, width) and not yet read:
    MLX reads a tensor when it is evaluated. ``source`` is the file, for messages.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, mx.array]
    source: str


@dataclass(frozen=True, kw_only=True)
class Components:
    """A whole image model. SDXL has two text encoders, each with its tokenizer."""

    unet: Component
    vae: Component
    text_encoders: tuple[Component, ...]
    tokenizers: tuple[Tokenizer, ...]
    scheduler: Mapping[str, Any]
    files: tuple[Path, ...]
    zero_empty_negative: bool = False
