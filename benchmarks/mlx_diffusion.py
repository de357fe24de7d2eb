"""studioq's own denoising loop as a contender, and the device's ceiling.

The rule this module protects: the loop is the one that jobs run, from drawn noise to the last
step's latents, with the engine's limits on memory. Nothing is copied from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from itertools import islice

import mlx.core as mx
import numpy as np

from benchmarks.diffusion_models import Subject
from workers.diffusion.denoise import Denoiser, Step
from workers.diffusion.samplers import make_sampler
from workers.memory import free_unused, on_gpu

CFG = 7.5
SAMPLER = "ddim"

_WARM_STEPS = 3

# Sides of the matrices of the ceiling, and the seconds it is measured for.
_SIDE_GPU, _SIDE_CPU = 8192, 1024
_PRODUCTS = 10
_CEILING_SECONDS = 1.0


def make_denoiser(subject: Subject, size: tuple[int, int], steps: int) -> Denoiser:
    """Return the loop over ``steps`` steps for pictures of ``size`` (height, width)."""
    sampler = make_sampler(SAMPLER, subject.model.scheduler, steps)
    return Denoiser(subject.model, subject.conditions, sampler, cfg=CFG, size=size)


class StudioqDenoising:
    """Batches denoised by ``workers.diffusion.denoise``."""

    def __init__(self, subject: Subject, size: tuple[int, int], steps: int) -> None:
        self.name = "studioq"
        self.rows = subject.conditions.context.shape[0]
        self.finite = True
        self._subject = subject
        self._size = size
        self._steps = steps
        self._denoisers: dict[int, Denoiser] = {}

    def _denoiser(self, steps: int) -> Denoiser:
        if steps not in self._denoisers:
            self._denoisers[steps] = make_denoiser(self._subject, self._size, steps)
        return self._denoisers[steps]

    def prepare(self, batch: int) -> None:
        """Do the first steps of a batch, which compiles them."""
        mx.reset_peak_memory()
        with closing(self._denoiser(self._steps).run(range(batch))) as steps:
            _exhaust(islice(steps, _WARM_STEPS))
        mx.synchronize()

    def run(self, batch: int) -> None:
        """Denoise a batch."""
        last = _exhaust(self._denoiser(self._steps).run(range(batch)))
        if last is not None:
            self.finite = self.finite and bool(np.isfinite(np.array(last.latents)).all())

    def few(self, batch: int, steps: int) -> None:
        """Denoise a batch in so many steps, compiled at the first call."""
        _exhaust(self._denoiser(steps).run(range(batch)))

    def peak_bytes(self) -> int | None:
        """Return MLX's peak, weights included."""
        return int(mx.get_peak_memory())

    def release(self) -> None:
        """Give back what MLX keeps for reuse."""
        free_unused()


def _exhaust(steps: Iterable[Step]) -> Step | None:
    last = None
    for last in steps:  # noqa: B007
        pass
    return last


def matmul_flops(dtype: mx.Dtype) -> float:
    """Return the most operations per second seen in products of large square matrices."""
    side = _SIDE_GPU if on_gpu() else _SIDE_CPU
    left, right = (mx.random.normal((side, side)).astype(dtype) for _ in range(2))
    # Of unit gain, so that the numbers neither vanish nor overflow.
    right = (right * side**-0.5).astype(dtype)
    mx.eval(left, right, _products(left, right))
    best, begun = 0.0, time.perf_counter()
    while time.perf_counter() - begun < _CEILING_SECONDS:
        start = time.perf_counter()
        mx.eval(_products(left, right))
        best = max(best, _PRODUCTS * 2 * side**3 / (time.perf_counter() - start))
    return best


def _products(left: mx.array, right: mx.array) -> mx.array:
    for _ in range(_PRODUCTS):
        left = left @ right
    return left
