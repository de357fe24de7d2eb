"""Write ``tests/unit/diffusion/references/samplers.npz``: what diffusers' schedulers do.

Run from the project's folder, in an environment that has torch and diffusers besides numpy:
``python -m tests.references.make_samplers``. Each scheduler is made as users make it: the class
that the file names is loaded, and the wanted class from that one's configuration.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from diffusers.schedulers import (
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_euler_discrete,
    scheduling_lcm,
)

from tests.unit.diffusion.sampler_cases import (
    FILES,
    Answer,
    Array,
    Case,
    all_cases,
    fresh_noise,
    network,
    noise,
    picture,
)

PLACE = Path(__file__).parents[1] / "unit" / "diffusion" / "references" / "samplers.npz"

_PLAIN = {"use_exponential_sigmas": False, "use_beta_sigmas": False}
_DPM = _PLAIN | {
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
    "use_lu_lambdas": False,
}
# A sampler's class, and what its name settles whatever the file says.
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", _PLAIN | {"use_karras_sigmas": False}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++2m": ("DPMSolverMultistepScheduler", _DPM | {"use_karras_sigmas": False}),
    "dpm++2m-karras": ("DPMSolverMultistepScheduler", _DPM | {"use_karras_sigmas": True}),
    "lcm": ("LCMScheduler", {}),
}
_DRAWING = (scheduling_euler_ancestral_discrete, scheduling_lcm)
_CONVERTING = (
    scheduling_dpmsolver_multistep,
    scheduling_euler_ancestral_discrete,
    scheduling_euler_discrete,
)


def scheduler(file: dict[str, Any], sampler: str) -> Any:
    """Return diffusers' scheduler for ``sampler`` from a file that any of its classes wrote."""
    written = getattr(diffusers, file["_class_name"]).from_config(file)
    name, settled = CLASSES[sampler]
    if sampler == "ddim":
        settled = {"clip_sample": file.get("clip_sample", False)}
    return getattr(diffusers, name).from_config(written.config, **settled)


def run(case: Case, file: dict[str, Any], kind: torch.dtype = torch.float32) -> Answer:
    """Run ``case`` as diffusers' image-to-image and inpainting pipelines run a scheduler.

    With ``kind`` float64 the same tables are used and all that follows is done in double.
    """
    made = scheduler(file, case.sampler)
    made.set_timesteps(case.steps)
    _convert_tables(made, kind)
    skipped = case.steps - min(int(case.steps * case.strength), case.steps)
    timesteps = made.timesteps[skipped:]
    if hasattr(made, "set_begin_index"):
        made.set_begin_index(skipped)
    with _arithmetic(kind):
        answer = _loop(made, timesteps, case.image, kind)
    return Answer(timesteps=timesteps.numpy().astype(np.float32), **answer)


def _loop(made: Any, timesteps: Any, image: bool, kind: torch.dtype) -> dict[str, Array]:
    def tensor(values: Array) -> Any:
        return torch.from_numpy(np.array(values)).reshape(1, -1, 1, 1).to(kind)

    clean, first = tensor(picture()), tensor(noise())
    sample = first * made.init_noise_sigma
    if image:
        sample = made.add_noise(clean, first, timesteps[:1])
    start, noised, denoised = sample, clean, clean
    for index, time in enumerate(timesteps):
        output = network(made.scale_model_input(sample, time), float(time), tensor)
        before = sample
        with _drawn(tensor(fresh_noise(index))):
            result = made.step(output, time, sample)
        sample = result.prev_sample
        if index == 0:
            denoised = _predicted(made, result, before, time)
        if index + 1 == len(timesteps) // 2:
            noised = made.add_noise(clean, first, timesteps[index + 1 : index + 2])
    assert sample.dtype == kind, sample.dtype
    names = {"start": start, "noised": noised, "denoised": denoised, "final": sample}
    return {name: found.reshape(-1).numpy().astype(np.float32) for name, found in names.items()}


def tables() -> dict[str, Array]:
    """Return the signal's part of the variance at each timestep, for each file."""
    return {
        f"alphas/{name}": scheduler(dict(file), "ddim").alphas_cumprod.numpy()[::7]
        for name, file in FILES.items()
    }


def packed(cases: Iterable[Case], files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the answers as few arrays: timesteps one after the other, the rest stacked.

    ``exact`` holds the final samples of double arithmetic: what is left of diffusers' own rounding.
    """
    found = list(cases)
    answers = [run(case, dict(files[case.file])) for case in found]
    exact = [run(case, dict(files[case.file]), torch.float64).final for case in found]
    return {
        "counts": np.array([len(answer.timesteps) for answer in answers], dtype=np.int32),
        "timesteps": np.concatenate([answer.timesteps for answer in answers]),
        "answers": np.array([[a.start, a.noised, a.denoised, a.final] for a in answers]),
        "exact": np.array(exact),
    }


def main() -> None:
    """Write everything anew."""
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    arrays = packed(all_cases(), FILES) | tables()
    wrong = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    assert not wrong, wrong
    np.savez_compressed(PLACE, **arrays)


def _predicted(made: Any, result: Any, sample: Any, time: Any) -> Any:
    """Return the predicted clean picture; LCM's is behind its boundary condition."""
    if hasattr(result, "pred_original_sample"):
        return result.pred_original_sample
    if hasattr(made, "model_outputs"):
        return made.model_outputs[-1]
    skip, out = made.get_scalings_for_boundary_condition_discrete(time)
    return (result.denoised - skip * sample) / out


def _convert_tables(made: Any, kind: torch.dtype) -> None:
    for name in ("alphas_cumprod", "final_alpha_cumprod", "sigmas"):
        if hasattr(made, name):
            setattr(made, name, getattr(made, name).to(kind))


class _Torch:
    """Torch with another type under the name of float32, to which some schedulers convert."""

    def __init__(self, kind: torch.dtype) -> None:
        self.float32 = kind

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def _arithmetic(kind: torch.dtype) -> Iterator[None]:
    """Let schedulers that convert samples to float32 convert them to ``kind``."""
    with ExitStack() as stack:
        for module in _CONVERTING:
            stack.enter_context(patch.object(module, "torch", _Torch(kind)))
        yield


@contextmanager
def _drawn(values: Any) -> Iterator[None]:
    """Give ``values`` to whatever scheduler draws noise."""
    with ExitStack() as stack:
        for module in _DRAWING:
            stack.enter_context(patch.object(module, "randn_tensor", lambda *_, **__: values))
        yield


if __name__ == "__main__":
    main()
