"""The sampler that a denoising loop holds: weighted sums of arrays, step by step.

The rule this module protects: a step costs a handful of elementwise operations. All knowledge of
the families (DDIM, Euler, DPM++, LCM) is in the weights that their modules prepare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from workers.diffusion.samplers.levels import CLEAN, Level, Move, Weights


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One call of the network and what follows: ``level`` is the sample's before the step.

    ``scale`` is what the sample is multiplied with for the network.
    """

    timestep: float
    level: Level
    clean: Weights
    move: Move
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """All stages in order. ``initial`` is the standard deviation of a first sample of pure noise.

    ``clip``: the predicted clean picture is kept within plus and minus this, None for no limit.
    """

    stages: tuple[Stage, ...]
    initial: float = 1.0
    clip: float | None = None


class Sampler:
    """Takes noise to latents over ``timesteps``. One for each batch under way: it has a memory.

    Samples, noise and pictures are arrays of one shape, or broadcast to one; results are float32.
    """

    def __init__(self, trajectory: Trajectory, *, partial: bool = False) -> None:
        """``partial``: the trajectory starts later, from a noised picture and never from noise."""
        clip = trajectory.clip
        self._stages = trajectory.stages
        self._initial = trajectory.initial
        self._clip = clip
        self._partial = partial
        self._moves = tuple(
            stage.move.without_clean(stage.clean) if clip is None else stage.move
            for stage in trajectory.stages
        )
        self._keeps_clean = any(move.previous for move in self._moves)
        self._kept: tuple[int, mx.array] | None = None
        self.timesteps = tuple(stage.timestep for stage in trajectory.stages)
        self.stochastic = any(move.noise for move in self._moves)

    def needs_noise(self, index: int) -> bool:
        """Say whether step ``index`` takes fresh noise; the last one never does."""
        return self._moves[index].noise != 0

    def start(self, noise: mx.array, clean: mx.array | None = None) -> mx.array:
        """Return the first sample: pure noise, or ``clean`` noised to the first step's level.

        ``noise`` has unit variance. With no steps at all it is ``clean``, in the shape of both.
        Diffusers' image-to-image pipeline gives ``clean`` at any strength, its inpainting pipeline
        only below 1.

        Raises:
            ValueError: the sampler starts from a picture, and none was given.
        """
        self._kept = None
        if clean is not None:
            return mx.broadcast_arrays(self.noised(clean, noise, 0), noise)[0]
        if self._partial:
            raise ValueError("a sampler with a strength below 1 starts from a clean picture")
        return _weighted([(self._initial, noise)])

    def scale(self, sample: mx.array, index: int) -> mx.array:
        """Return ``sample`` as the network takes it before step ``index``."""
        factor = self._stages[index].scale
        return sample if factor == 1 else sample * factor

    def step(
        self, output: mx.array, index: int, sample: mx.array, noise: mx.array | None = None
    ) -> mx.array:
        """Return the sample after step ``index``, from the network's ``output`` before it.

        Raises:
            ValueError: the step needs fresh noise and has none, or a step before it was left out.
        """
        move = self._moves[index]
        clean = self.denoised(output, index, sample) if self._needs_clean(index) else None
        terms = [(move.sample, sample), (move.output, output)]
        if move.clean and clean is not None:
            terms.append((move.clean, clean))
        if move.previous:
            terms.append((move.previous, self._clean_before(index)))
        if move.noise:
            if noise is None:
                raise ValueError(f"step {index} of this sampler needs fresh noise")
            terms.append((move.noise, noise))
        if self._keeps_clean and clean is not None:
            self._kept = (index, clean)
        return _weighted(terms)

    def noised(self, clean: mx.array, noise: mx.array, index: int) -> mx.array:
        """Return ``clean`` at the level that the sample has before step ``index``.

        After the last step, at ``len(timesteps)``, that is ``clean`` itself. For inpainting:
        diffusers' ``StableDiffusionInpaintPipeline`` with a network of 4 channels does this with
        ``index`` of the step to come, always with the noise that the sample started from.
        """
        level = self._stages[index].level if index < len(self._stages) else CLEAN
        return _weighted([(level.signal, clean), (level.noise, noise)])

    def denoised(self, output: mx.array, index: int, sample: mx.array) -> mx.array:
        """Return the clean latents that ``output`` predicts before step ``index``."""
        weights = self._stages[index].clean
        clean = _weighted([(weights.sample, sample), (weights.output, output)])
        return clean if self._clip is None else mx.clip(clean, -self._clip, self._clip)

    def _needs_clean(self, index: int) -> bool:
        return self._keeps_clean or self._moves[index].clean != 0

    def _clean_before(self, index: int) -> mx.array:
        if self._kept is None or self._kept[0] != index - 1:
            raise ValueError(f"step {index} of this sampler follows step {index - 1}")
        return self._kept[1]


def _weighted(terms: Sequence[tuple[float, mx.array]]) -> mx.array:
    """Return the sum in float32; a weight of 0 leaves its array out, one of 1 costs nothing."""
    products = [
        array.astype(mx.float32) if weight == 1 else array.astype(mx.float32) * weight
        for weight, array in terms
        if weight
    ]
    return sum(products[1:], start=products[0])
