"""The noise schedule of a single-file checkpoint, and whether it predicts noise or velocity.

The rule this module protects: the schedule is the one that all these models were trained with, and
what a file may vary is told in one order: the sidecar, marks in the file, the family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from workers.diffusion.single_file_configs import Family
from workers.diffusion.single_file_kinds import UNET
from workers.diffusion.single_file_sidecar import Sidecar
from workers.diffusion.tensor_files import TensorFile

EPSILON, VELOCITY = "epsilon", "v_prediction"

# The schedule of Stable Diffusion 1.x, 2.x and SDXL: the released models' scheduler_config.json.
_SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

# Zero terminal noise-to-signal ratio needs the last step to be taken (Lin et al. 2023,
# arXiv:2305.08891, section 3.3).
_ZERO_TERMINAL = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

# Metadata of Stability's ModelSpec 1.0.0 and of ComfyUI.
_MARKS = ("modelspec.prediction_type", "modelspec.predict_key")
_WORDS = {"v": VELOCITY, "v_prediction": VELOCITY, "epsilon": EPSILON, "eps": EPSILON}

# ComfyUI's comfy/supported_models.py, class SD20, tells the 768-v models by a wide spread here.
_TELLING = "transformer_blocks.0.norm1.bias"
_SPREAD = 0.09


def scheduler_config(file: TensorFile, family: Family, sidecar: Sidecar) -> dict[str, Any]:
    """Return the checkpoint's ``scheduler_config.json`` as diffusers would write it."""
    config: dict[str, Any] = dict(_SCHEDULE)
    if "ztsnr" in file.shapes:
        config |= _ZERO_TERMINAL
    config = sidecar.override("scheduler", config | {"prediction_type": _prediction(file, family)})
    if sidecar.prediction_type is not None:
        config["prediction_type"] = sidecar.prediction_type
    return config


def is_velocity(config: Mapping[str, Any]) -> bool:
    """Say whether the model predicts velocity (Salimans and Ho 2022, arXiv:2202.00512)."""
    return bool(config["prediction_type"] == VELOCITY)


def _prediction(file: TensorFile, family: Family) -> str:
    for mark in _MARKS:
        if file.metadata.get(mark) in _WORDS:
            return _WORDS[file.metadata[mark]]
    if "v_pred" in file.shapes:
        return VELOCITY
    return _guess(file) if family.guesses_prediction else EPSILON


def _guess(file: TensorFile) -> str:
    """Tell SD 2.x models apart, which differ in their numbers alone; inpainting predicts noise."""
    if file.shapes[f"{UNET}input_blocks.0.0.weight"][1] != 4:
        return EPSILON
    names = [name for name in file.shapes if name.startswith(f"{UNET}output_blocks.")]
    last = max(int(name.removeprefix(f"{UNET}output_blocks.").split(".")[0]) for name in names)
    name = f"{UNET}output_blocks.{last}.1.{_TELLING}"
    if name not in file.shapes:
        return EPSILON
    spread = mx.std(file.floats(name).astype(mx.float32))
    return VELOCITY if bool(spread > _SPREAD) else EPSILON
