"""What the samplers are asked, here and where the references were made: imports no engine.

``FILES`` are scheduler_config.json files as published models have them, and made-up ones for
settings that are rare. ``network`` stands for a UNet: a linear function of what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

WIDTH = 4
_NETWORK = np.array([0.1, -0.2, 0.3, 0.05], dtype=np.float32)
_TIME = np.array([2e-4, 1e-4, -3e-4, 5e-4], dtype=np.float32)
_MOST_STEPS = 1000

_LATENT: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
# Stable Diffusion 1.5 as published, with neither a spacing nor a prediction type.
_SD15 = _LATENT | {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
_SD21 = _LATENT | {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
_SDXL = _LATENT | {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "clip_sample": False,
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
_MADE_UP = _LATENT | {"_class_name": "DDIMScheduler", "clip_sample": False}

FILES: Mapping[str, Mapping[str, Any]] = {
    "sd15": _SD15,
    "sd15-saved": _SD15 | {"timestep_spacing": "leading", "prediction_type": "epsilon"},
    "sd21-v": _SD21,
    "sdxl": _SDXL,
    "sdxl-v": _SDXL
    | {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    "turbo": _SDXL
    | {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"},
    "lcm": _LATENT
    | {
        "_class_name": "LCMScheduler",
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "original_inference_steps": 50,
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "set_alpha_to_one": True,
        "steps_offset": 1,
        "thresholding": False,
        "timestep_scaling": 10.0,
        "timestep_spacing": "leading",
    },
    "dpm": _LATENT
    | {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "dpmsolver++",
        "lambda_min_clipped": -float("inf"),
        "lower_order_final": True,
        "prediction_type": "epsilon",
        "solver_order": 2,
        "solver_type": "midpoint",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "use_karras_sigmas": True,
        "variance_type": None,
    },
    "unipc": _LATENT
    | {
        "_class_name": "UniPCMultistepScheduler",
        "disable_corrector": [],
        "predict_x0": True,
        "prediction_type": "v_prediction",
        "solver_order": 2,
        "solver_type": "bh2",
        "steps_offset": 1,
        "timestep_spacing": "linspace",
    },
    "bare": {"_class_name": "DDPMScheduler", "clip_sample": False},
    "sample": _MADE_UP | {"prediction_type": "sample"},
    "linspace": _MADE_UP | {"timestep_spacing": "linspace"},
    "trailing": _MADE_UP | {"timestep_spacing": "trailing", "set_alpha_to_one": False},
    "linear": _MADE_UP | {"beta_schedule": "linear"},
    "cosine": _MADE_UP | {"beta_schedule": "squaredcos_cap_v2"},
    "cosine-clipped": _MADE_UP
    | {
        "_class_name": "DPMSolverMultistepScheduler",
        "beta_schedule": "squaredcos_cap_v2",
        "lambda_min_clipped": -5.1,
        "timestep_spacing": "linspace",
    },
    "trained": _MADE_UP
    | {
        "num_train_timesteps": 200,
        "trained_betas": [0.001 + 0.0001 * place for place in range(200)],
    },
    "zero-snr": _MADE_UP | {"rescale_betas_zero_snr": True},
    "clipped": _MADE_UP | {"clip_sample": True, "clip_sample_range": 0.75},
    "sigma-min": _MADE_UP
    | {
        "_class_name": "EulerDiscreteScheduler",
        "final_sigmas_type": "sigma_min",
        "sigma_min": 0.1,
        "sigma_max": 10.0,
    },
    "log-linear": _MADE_UP
    | {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"},
}

SAMPLERS = ("ddim", "euler", "euler-a", "dpm++2m", "dpm++2m-karras", "lcm")
_PUBLISHED = ("sd15", "sd15-saved", "sd21-v", "sdxl", "sdxl-v", "turbo", "lcm", "dpm", "unipc")
_MADE = tuple(name for name in FILES if name not in _PUBLISHED)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run: ``image`` says whether it starts from a noised picture; below 1 it always does."""

    file: str
    sampler: str
    steps: int
    strength: float = 1.0
    image: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a run gives.

    ``noised``: the clean picture at the level before the middle step; ``denoised``: the picture
    predicted in the first step.
    """

    timesteps: Array
    start: Array
    noised: Array
    denoised: Array
    final: Array


def all_cases() -> Iterator[Case]:
    """Yield every case that has a reference, in the order of the file."""
    for case in _all_cases():
        if _possible(case):
            yield case


def _all_cases() -> Iterator[Case]:
    for file, sampler, steps in product(_PUBLISHED, SAMPLERS, (1, 2, 4, 20, 25)):
        yield Case(file=file, sampler=sampler, steps=steps)
    for file, sampler, steps in product(_MADE, SAMPLERS, (3, 15, 20)):
        yield Case(file=file, sampler=sampler, steps=steps)
    for file, sampler, strength in product(("sd15", "sdxl", "sdxl-v"), SAMPLERS, (0.3, 0.7, 1.0)):
        yield Case(file=file, sampler=sampler, steps=20, strength=strength, image=True)
    for file, sampler, steps in product(("sd15", "sdxl"), SAMPLERS, (50, 999, 1000)):
        yield Case(file=file, sampler=sampler, steps=steps)


def _possible(case: Case) -> bool:
    """Say whether diffusers can do it: not all steps, not all predictions with all samplers."""
    file = FILES[case.file]
    if case.sampler == "euler-a" and file.get("prediction_type") == "sample":
        return False
    if case.steps > 50:
        spacing = file.get("timestep_spacing", "leading" if case.sampler == "ddim" else "linspace")
        full = case.steps == _MOST_STEPS and (case.sampler == "ddim" or spacing != "linspace")
        return case.sampler != "lcm" and not (full or case.sampler == "dpm++2m")
    return not (case.file == "zero-snr" and case.sampler == "lcm")


def network(inputs: Any, timestep: float, convert: Any) -> Any:
    """Return the output for ``inputs``; ``convert`` makes an engine's array of a numpy one."""
    return inputs * convert(_NETWORK) + convert(_TIME * np.float32(timestep))


def noise() -> Array:
    """Return the noise of a run's start, (WIDTH,)."""
    return np.asarray(_drawn()[0])


def picture() -> Array:
    """Return the clean picture, (WIDTH,)."""
    return np.asarray(_drawn()[1])


def fresh_noise(index: int) -> Array:
    """Return what step ``index`` of a run draws, (WIDTH,)."""
    return np.asarray(_drawn()[2 + index])


@lru_cache(maxsize=1)
def _drawn() -> Array:
    generator = np.random.Generator(np.random.PCG64(1))
    return generator.standard_normal((2 + _MOST_STEPS, WIDTH), dtype=np.float32)
