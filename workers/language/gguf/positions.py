"""How a GGUF file's model scales positions beyond the length it was first trained on.

The rule this module protects: scaling is put into mlx-lm's configuration where that can express it,
done by a layer of our own where it cannot, and refused where neither is known to be right.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

from daemon.errors import ModelError
from workers.language.gguf.blocks import read_floats
from workers.language.gguf.file import FOLDER, GGUFFile

FREQUENCY_FACTORS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"

_YARN = ("yarn_beta_fast", "yarn_beta_slow")
_UNKNOWN_YARN = ("yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor", "attn_factor")
# Llama 3.1 and 3.3 (8), and 3.2 (32), as Meta's own config.json give them.
_LLAMA3 = [
    {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    for factor in (8.0, 32.0)
]


class FrequencyRoPE(nn.Module):  # type: ignore[misc]
    """Rotary positions with a wavelength for each pair of dimensions, halves layout.

    ``wavelengths``: (dims / 2,), positions per radian.
    """

    def __init__(self, wavelengths: mx.array) -> None:
        super().__init__()
        self._freqs = wavelengths  # mx.fast.rope's freqs divide the position

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate ``x``, (…, length, dims), from the position ``offset`` on."""
        return mx.fast.rope(
            x,
            2 * self._freqs.size,
            traditional=False,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=self._freqs,
        )


def rope_scaling(file: GGUFFile) -> dict[str, Any] | None:
    """Return mlx-lm's ``rope_scaling`` for what the metadata says, None for no scaling.

    Raises:
        ModelError: positions are scaled in a way that is not known here.
    """
    kind = file.setting("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind == "linear":
        return {"type": "linear", "factor": float(file.number("rope.scaling.factor", 1.0))}
    if kind == "yarn":
        return _yarn(file)
    raise unknown_scaling(file, repr(kind))


def unknown_scaling(file: GGUFFile, kind: str) -> ModelError:
    """Return what is said of a file that scales positions as this architecture does not."""
    return ModelError(
        f"{file.name} scales positions by {kind}, which is not supported as GGUF "
        f"for {file.architecture}",
        remedy=FOLDER,
    )


def _yarn(file: GGUFFile) -> dict[str, Any]:
    odd = [key for key in _UNKNOWN_YARN if file.setting(f"rope.scaling.{key}") is not None]
    if odd:
        raise unknown_scaling(file, f"'yarn' with {odd[0]}")
    found = {
        "rope_type": "yarn",
        "factor": float(file.number("rope.scaling.factor")),
        "original_max_position_embeddings": file.number("rope.scaling.original_context_length"),
    }
    for key in _YARN:
        if file.setting(f"rope.scaling.{key}") is not None:
            found[key.removeprefix("yarn_")] = file.number(f"rope.scaling.{key}")
    return found


def long_factors(file: GGUFFile) -> dict[str, Any] | None:
    """Return the ``rope_scaling`` of Phi-3's long contexts, None where the file has no factors.

    mlx-lm's network takes the long factors for texts of every length.
    """
    if LONG_FACTORS not in file.tensors:
        return None
    long, short = (
        np.array(read_floats(file.path, file.tensor(name)).astype(mx.float32))
        for name in (LONG_FACTORS, SHORT_FACTORS)
    )
    return {"type": "longrope", "long_factor": long.tolist(), "short_factor": short.tolist()}


def llama3_scaling(factors: np.ndarray, dims: int, base: float) -> dict[str, Any] | None:
    """Return the published ``rope_scaling`` that gives ``factors``, (dims / 2,), None if none does.

    llama.cpp's converter computes Llama 3.1's scaling into these factors, and the file does not
    keep the parameters.
    """
    for scaling in _LLAMA3:
        expected = _llama3_factors(scaling, dims, base)
        if factors.shape == expected.shape and np.allclose(factors, expected, rtol=1e-5, atol=0):
            return dict(scaling)
    return None


def _llama3_factors(scaling: dict[str, Any], dims: int, base: float) -> np.ndarray:
    """Return what each rotary frequency is divided by (transformers' rope type llama3)."""
    waves = 2 * math.pi * base ** (np.arange(0, dims, 2) / dims)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] / waves
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / scaling["factor"] + smooth))


def scale_frequencies(model: nn.Module, factors: np.ndarray, dims: int, base: float) -> None:
    """Divide the rotary frequencies of a llama network by ``factors``, (dims / 2,)."""
    bases = base ** (mx.arange(0, dims, 2, dtype=mx.float32) / dims)
    wavelengths = bases * mx.array(factors, mx.float32)
    mx.eval(wavelengths)
    for layer in model.model.layers:
        layer.self_attn.rope = FrequencyRoPE(wavelengths)
