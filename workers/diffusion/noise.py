"""Gaussian noise for latents, drawn on the host.

The rule this module protects: a picture's noise follows from the job's seed and the picture's
number alone. It knows no batch, no device and no other picture; MLX's own generator differs
between chips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SEEDS = 2**32


def image_seed(seed: int, index: int) -> int:
    """Return the seed of picture ``index`` of a job: picture k of seed s is picture 0 of s + k."""
    return (seed + index) % _SEEDS


class NoiseStream:
    """The noise of one picture: first its start, then what its sampler asks for, step by step."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def draw(self, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
        """Return the next noise of unit variance, ``shape`` (height, width, channels).

        It is drawn channels first, so it equals the draw of a program that keeps latents so,
        transposed.
        """
        height, width, channels = shape
        drawn = self._generator.standard_normal((channels, height, width), dtype=np.float32)
        return np.ascontiguousarray(drawn.transpose(1, 2, 0))


def draw_batch(
    streams: Sequence[NoiseStream], shape: tuple[int, int, int]
) -> npt.NDArray[np.float32]:
    """Return the next noise of each stream, (streams, height, width, channels)."""
    return np.stack([stream.draw(shape) for stream in streams])
