"""The arithmetic of one step, in Python floats: no arrays here.

The rule this module protects: every step of every sampler is a weighted sum of arrays, and its
weights are computed once, in double precision, before the first step.

A noised sample is signal * clean + noise * gaussian. ``Level`` holds the two factors: DDIM, DPM++
and LCM keep signal² + noise² = 1, Euler keeps signal = 1. The networks see the former.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from daemon.errors import ModelError
from workers.diffusion.schedule import Prediction


class Level(NamedTuple):
    """How much of the clean picture and of the noise a sample holds."""

    signal: float
    noise: float

    @classmethod
    def from_alpha(cls, alpha: float) -> Level:
        """Return the level of unit variance whose signal has the variance ``alpha``."""
        return cls(math.sqrt(alpha), math.sqrt(1 - alpha))

    @classmethod
    def from_sigma(cls, sigma: float) -> Level:
        """Return the level of unit variance that has this ratio of noise to signal."""
        signal = 1 / math.sqrt(sigma * sigma + 1)
        return cls(signal, sigma * signal)

    @property
    def scale(self) -> float:
        """What takes a sample of this level to unit variance."""
        return 1 / math.sqrt(self.signal * self.signal + self.noise * self.noise)


CLEAN = Level(1.0, 0.0)


class Weights(NamedTuple):
    """A weighted sum of the sample and the network's output."""

    sample: float
    output: float


class Move(NamedTuple):
    """One step as a weighted sum; ``previous`` is of the clean picture predicted a step before."""

    sample: float = 0.0
    output: float = 0.0
    clean: float = 0.0
    previous: float = 0.0
    noise: float = 0.0

    def without_clean(self, clean: Weights) -> Move:
        """Return the same sum with the predicted clean picture written out."""
        return self._replace(
            sample=self.sample + self.clean * clean.sample,
            output=self.output + self.clean * clean.output,
            clean=0.0,
        )


def clean_weights(level: Level, prediction: Prediction) -> Weights:
    """Return the weights that give the predicted clean picture.

    For "v_prediction" see Salimans and Ho 2022, arXiv 2202.00512, appendix D.

    Raises:
        ModelError: noise is predicted where the sample holds nothing else.
    """
    if prediction == "sample":
        return Weights(0.0, 1.0)
    if prediction == "v_prediction":
        scale = level.scale
        return Weights(level.signal * scale * scale, -level.noise * scale)
    if level.signal == 0:
        raise ModelError(
            "the model's schedule starts from noise alone (rescale_betas_zero_snr), and from its"
            " prediction_type epsilon this sampler cannot tell a picture there",
            remedy="use the sampler euler or dpm++2m, or give the prediction type v_prediction",
        )
    return Weights(1 / level.signal, -level.noise / level.signal)


def noise_weights(level: Level, prediction: Prediction) -> Weights:
    """Return the weights that give the predicted noise, of unit variance."""
    if prediction == "epsilon":
        return Weights(0.0, 1.0)
    if prediction == "v_prediction":
        scale = level.scale
        return Weights(level.noise * scale * scale, level.signal * scale)
    if level.noise == 0:
        return Weights(0.0, 0.0)
    return Weights(1 / level.noise, -level.signal / level.noise)


def transfer(level: Level, target: Level, prediction: Prediction) -> Move:
    """Return the step that keeps the predicted picture and noise and mixes them anew.

    Song et al. 2021, arXiv 2010.02502, equation 12 with eta 0. With signal 1 it is Euler's step
    (Karras et al. 2022, arXiv 2206.00364, algorithm 1).
    """
    noise = noise_weights(level, prediction)
    return Move(
        sample=target.noise * noise.sample,
        output=target.noise * noise.output,
        clean=target.signal,
    )
