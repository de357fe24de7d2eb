"""The noise schedule of a model, read from diffusers' ``scheduler_config.json``.

The rule this module protects: the schedule is the one that the network was trained with. The file
may have been written by any of diffusers' schedulers; its facts about the noise are read, the
sampler is the user's choice, and what no sampler here can follow is refused by name.

A setting that the file leaves out has the default of the *chosen* sampler's class, not of the class
that wrote the file: that is what diffusers' ``from_config`` does. So the PNDM file of Stable
Diffusion 1.5, which has no ``timestep_spacing``, gives "leading" to DDIM and "linspace" to Euler.
One default differs: ``clip_sample`` is off where the file does not ask for it. Latents go far
beyond ±1, and diffusers' ``StableDiffusionPipeline`` turns it off as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from daemon.errors import ModelError
from workers.diffusion.settings import Settings

Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "linspace", "trailing"]
BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
FinalSigma = Literal["zero", "sigma_min"]
Interpolation = Literal["linear", "log_linear"]
Float32s = npt.NDArray[np.float32]

_Word = TypeVar("_Word", bound=str)
_Default = TypeVar("_Default", bound="str | float | None")

# What stands for a signal of zero where a sampler divides by it (diffusers' Euler and DPM-Solver).
SMALLEST_SIGNAL = 2.0**-24

_SOURCE = "scheduler_config.json"
_BETA_SCHEDULES: tuple[BetaSchedule, ...] = get_args(BetaSchedule)
_PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
_SPACINGS: tuple[Spacing, ...] = get_args(Spacing)
_FINAL_SIGMAS: tuple[FinalSigma, ...] = get_args(FinalSigma)
_INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
_MOST_TRAIN_STEPS = 100_000
# Below it 1 - beta is 1 in float32.
_LEAST_BETA = 1e-6
# The cosine schedule ends at 2e-9.
_LEAST_SIGNAL = 1e-20
# Schedulers of models whose noise is not a schedule of betas.
_OTHER_NOISE = ("FlowMatch", "EDM")
_COSINE_OFFSET = 0.008
_COSINE_LARGEST_BETA = 0.999


@dataclass(frozen=True, kw_only=True)
class ClassDefaults:
    """What a diffusers scheduler class uses for settings that a file leaves out."""

    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    timestep_spacing: Spacing = "leading"


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What a model's file says about its noise; None where the sampler's class decides.

    ``final_sigmas_type`` is followed by Euler and DPM++, ``interpolation_type`` by Euler,
    ``lambda_min_clipped``, ``sigma_min`` and ``sigma_max`` by DPM++, ``set_alpha_to_one`` by DDIM,
    ``clip_sample`` by DDIM and LCM, the last two by LCM: as in diffusers.
    """

    num_train_timesteps: int = 1000
    beta_start: float | None = None
    beta_end: float | None = None
    beta_schedule: BetaSchedule | None = None
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: Prediction = "epsilon"
    timestep_spacing: Spacing | None = None
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    final_sigmas_type: FinalSigma = "zero"
    interpolation_type: Interpolation = "linear"
    lambda_min_clipped: float = -math.inf
    sigma_min: float | None = None
    sigma_max: float | None = None
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = _SOURCE) -> Self:
        """Read the file's content; ``source`` is the file's name in messages.

        Raises:
            ModelError: names the setting, its value and what can be used.
        """
        settings = Settings(source, data)
        _refuse_other_noise(settings)
        train_steps = _train_steps(settings)
        return cls(
            num_train_timesteps=train_steps,
            beta_start=_beta(settings, "beta_start"),
            beta_end=_beta(settings, "beta_end"),
            beta_schedule=_one_of(settings, "beta_schedule", _BETA_SCHEDULES, None),
            trained_betas=_trained_betas(settings, train_steps),
            rescale_betas_zero_snr=settings.flag("rescale_betas_zero_snr", False),
            prediction_type=_one_of(settings, "prediction_type", _PREDICTIONS, "epsilon"),
            timestep_spacing=_one_of(settings, "timestep_spacing", _SPACINGS, None),
            steps_offset=settings.whole("steps_offset", 0, least=0),
            set_alpha_to_one=settings.flag("set_alpha_to_one", True),
            clip_sample=settings.flag("clip_sample", False),
            clip_sample_range=_positive(settings, "clip_sample_range", 1.0),
            final_sigmas_type=_one_of(settings, "final_sigmas_type", _FINAL_SIGMAS, "zero"),
            interpolation_type=_one_of(settings, "interpolation_type", _INTERPOLATIONS, "linear"),
            lambda_min_clipped=_number(settings, "lambda_min_clipped", -math.inf),
            sigma_min=_positive(settings, "sigma_min", None),
            sigma_max=_positive(settings, "sigma_max", None),
            original_inference_steps=settings.whole("original_inference_steps", 50),
            timestep_scaling=_positive(settings, "timestep_scaling", 10.0),
        )

    def for_stable_diffusion(self) -> Self:
        """Return it as diffusers' pipelines of Stable Diffusion 1.x and 2.x correct any file.

        Their constructors set ``steps_offset`` to 1 and ``clip_sample`` to false; SDXL's do not.
        """
        return replace(self, steps_offset=1, clip_sample=False)


def alphas_cumprod(config: SchedulerConfig, defaults: ClassDefaults) -> Float32s:
    """Return the part of the signal's variance at each training timestep, shape (timesteps,).

    The product of 1 - beta (Ho et al. 2020, arXiv 2006.11239, section 2), rounded to float32 where
    diffusers' tables are: near the clean end the rounding moves sigma by 1e-5, and networks were
    trained with it. With a zero terminal signal-to-noise ratio the last element is 0.

    Raises:
        ModelError: the betas leave no signal before the last timestep.
    """
    one = np.float32(1)
    kept = one - _betas(config, defaults)
    if config.rescale_betas_zero_snr:
        kept = one - (one - _without_terminal_signal(kept))
    table = _products(kept)
    some = table[:-1] if config.rescale_betas_zero_snr else table
    if not (some > _LEAST_SIGNAL).all():
        raise ModelError(
            f"the betas of the model's noise schedule leave no signal at timestep"
            f" {int((some > _LEAST_SIGNAL).argmin())} of {len(table)}",
            remedy="correct beta_start, beta_end or trained_betas in its scheduler_config.json",
        )
    return table


def with_smallest_signal(config: SchedulerConfig, alphas: Float32s) -> Float32s:
    """Return ``alphas`` with a last element that can be divided by, as Euler and DPM++ need it."""
    if not config.rescale_betas_zero_snr:
        return alphas
    return np.append(alphas[:-1], np.float32(SMALLEST_SIGNAL))


def noise_ratios(alphas: Float32s) -> Float32s:
    """Return sigma, the noise's standard deviation over the signal's, of each timestep."""
    return np.sqrt((np.float32(1) - alphas) / alphas)


def _betas(config: SchedulerConfig, defaults: ClassDefaults) -> Float32s:
    """Return the variance that each training timestep adds, shape (timesteps,)."""
    if config.trained_betas is not None:
        return np.array(config.trained_betas, dtype=np.float32)
    count = config.num_train_timesteps
    start = defaults.beta_start if config.beta_start is None else config.beta_start
    end = defaults.beta_end if config.beta_end is None else config.beta_end
    match config.beta_schedule or defaults.beta_schedule:
        case "linear":
            return _line(start, end, count)
        case "scaled_linear":
            return _line(math.sqrt(start), math.sqrt(end), count) ** 2
        case "squaredcos_cap_v2":
            return _cosine(count)


def _line(start: float, end: float, count: int) -> Float32s:
    """Return equally spaced numbers, each rounded once, from both ends as torch.linspace has it."""
    first, last = float(np.float32(start)), float(np.float32(end))
    step = float((np.float32(last) - np.float32(first)) / np.float32(count - 1))
    places = np.arange(count)
    line = np.where(places < count // 2, first + step * places, last - step * (count - 1 - places))
    return line.astype(np.float32)


def _cosine(count: int) -> Float32s:
    """Return the betas of the cosine schedule (Nichol and Dhariwal 2021, arXiv 2102.09672, 17)."""

    def signal(time: float) -> float:
        return math.cos((time + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2) ** 2

    losses = (1 - signal((step + 1) / count) / signal(step / count) for step in range(count))
    return np.array([min(loss, _COSINE_LARGEST_BETA) for loss in losses], dtype=np.float32)


def _products(kept: Float32s) -> Float32s:
    """Return running products, summed up in double and each rounded once."""
    return np.cumprod(kept.astype(np.float64)).astype(np.float32)


def _without_terminal_signal(kept: Float32s) -> Float32s:
    """Return 1 - beta moved so that the last timestep is noise alone.

    Lin et al. 2023, arXiv 2305.08891, algorithm 1: the square roots of the products are shifted to
    end at 0 and scaled to keep the first.
    """
    roots = np.sqrt(_products(kept))
    first, last = roots[0], roots[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        signal = ((roots - last) * (first / (first - last))) ** 2
        return np.concatenate([signal[:1], signal[1:] / signal[:-1]])


def _refuse_other_noise(settings: Settings) -> None:
    """Refuse models that no schedule of betas describes, and settings of pixel models."""
    name = settings.take("_class_name", "")
    if str(name).startswith(_OTHER_NOISE):
        raise settings.refused("_class_name", "a scheduler of Stable Diffusion 1.x, 2.x or SDXL")
    settings.fixed(timestep_type="discrete", use_flow_sigmas=False, thresholding=False)
    if settings.take("variance_type", "fixed") in ("learned", "learned_range"):
        raise settings.refused("variance_type", "a fixed one")


def _one_of(
    settings: Settings, key: str, allowed: tuple[_Word, ...], default: _Default
) -> _Word | _Default:
    """Return one of the allowed words, ``default`` where the file has none."""
    value = settings.take(key, None)
    if value is None:
        return default
    for word in allowed:
        if word == value:
            return word
    raise settings.refused(key, " or ".join(allowed))


def _train_steps(settings: Settings) -> int:
    value = settings.whole("num_train_timesteps", 1000, least=2)
    if value > _MOST_TRAIN_STEPS:
        raise settings.refused("num_train_timesteps", f"at most {_MOST_TRAIN_STEPS}")
    return value


def _number(settings: Settings, key: str, default: float) -> float:
    """Return any number but NaN."""
    value = settings.take(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise settings.refused(key, "a number")
    return float(value)


def _positive(settings: Settings, key: str, default: _Default) -> float | _Default:
    """Return a positive, finite number, ``default`` where the file has none."""
    if settings.take(key, None) is None:
        return default
    value = settings.number(key, 1.0)
    if not math.isfinite(value):
        raise settings.refused(key, "a positive number")
    return value


def _beta(settings: Settings, key: str) -> float | None:
    value = _positive(settings, key, None)
    if value is not None and not _LEAST_BETA <= value < 1:
        raise settings.refused(key, f"a number from {_LEAST_BETA} and below 1")
    return value


def _trained_betas(settings: Settings, count: int) -> tuple[float, ...] | None:
    """Return a list of ``count`` numbers between 0 and 1, None where the file has none."""
    values = settings.take("trained_betas", None)
    if values is None:
        return None
    if not isinstance(values, list | tuple) or len(values) != count:
        raise settings.refused("trained_betas", f"a list of {count}, as num_train_timesteps says")
    if not all(isinstance(item, float) and _LEAST_BETA <= item < 1 for item in values):
        raise settings.refused("trained_betas", f"numbers from {_LEAST_BETA} and below 1")
    return tuple(values)
