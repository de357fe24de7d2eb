from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import ModelError
from tests.unit.diffusion.sampler_cases import FILES
from workers.diffusion.schedule import (
    SMALLEST_SIGNAL,
    ClassDefaults,
    SchedulerConfig,
    alphas_cumprod,
    noise_ratios,
    with_smallest_signal,
)

_REFERENCES = Path(__file__).parent / "references" / "samplers.npz"
_DEFAULTS = ClassDefaults()


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_table_is_the_one_of_diffusers(name: str) -> None:
    """Without a zero terminal ratio to the last bit; with it torch's own square roots differ."""
    config = SchedulerConfig.from_dict(FILES[name])
    with np.load(_REFERENCES) as references:
        expected = references[f"alphas/{name}"]
    table = alphas_cumprod(config, _DEFAULTS)[::7]
    np.testing.assert_allclose(table, expected, rtol=5e-6 if config.rescale_betas_zero_snr else 0)


def test_what_a_file_leaves_out_is_left_to_the_samplers_class() -> None:
    config = SchedulerConfig.from_dict(FILES["sd15"])
    assert config.timestep_spacing is None
    assert config.prediction_type == "epsilon"
    assert not config.set_alpha_to_one
    assert config.steps_offset == 1
    bare = SchedulerConfig.from_dict({})
    assert (bare.beta_start, bare.beta_end, bare.beta_schedule) == (None, None, None)
    latent = ClassDefaults(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert not np.array_equal(alphas_cumprod(bare, latent), alphas_cumprod(bare, _DEFAULTS))


def test_null_is_the_same_as_left_out() -> None:
    nothing = dict.fromkeys(FILES["lcm"].keys() | {"sigma_min", "lambda_min_clipped"}, None)
    assert SchedulerConfig.from_dict(nothing) == SchedulerConfig.from_dict({}) == SchedulerConfig()


def test_settings_of_samplers_are_not_read() -> None:
    config = SchedulerConfig.from_dict(FILES["dpm"])
    others = {"solver_order": 3, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
    assert SchedulerConfig.from_dict({**FILES["dpm"], **others, "unheard_of": 1}) == config


def test_latents_are_not_clipped_unless_the_file_asks_for_it() -> None:
    assert not SchedulerConfig.from_dict({"_class_name": "DDIMScheduler"}).clip_sample
    assert SchedulerConfig.from_dict(FILES["clipped"]).clip_sample


def test_stable_diffusion_corrects_what_its_files_say() -> None:
    config = SchedulerConfig.from_dict({"steps_offset": 0, "clip_sample": True, "beta_start": 0.1})
    corrected = config.for_stable_diffusion()
    assert (corrected.steps_offset, corrected.clip_sample) == (1, False)
    assert corrected.beta_start == 0.1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "FlowMatchEulerDiscreteScheduler"),
        ("_class_name", "EDMEulerScheduler"),
        ("beta_schedule", "sigmoid"),
        ("beta_schedule", ["linear"]),
        ("beta_start", -0.1),
        ("beta_start", "0.1"),
        ("beta_end", 1.0),
        ("beta_end", float("nan")),
        ("clip_sample", "false"),
        ("clip_sample_range", 0),
        ("final_sigmas_type", "one"),
        ("interpolation_type", "cubic"),
        ("lambda_min_clipped", float("nan")),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", 1000.5),
        ("num_train_timesteps", 10**6),
        ("original_inference_steps", 0),
        ("prediction_type", "flow_prediction"),
        ("prediction_type", True),
        ("sigma_max", float("inf")),
        ("steps_offset", -1),
        ("thresholding", True),
        ("timestep_spacing", "karras"),
        ("timestep_type", "continuous"),
        ("trained_betas", [0.1, 0.2]),
        ("trained_betas", [0.1] * 999 + [1.0]),
        ("trained_betas", [0.1] * 999 + ["0.1"]),
        ("trained_betas", 0.1),
        ("use_flow_sigmas", True),
        ("variance_type", "learned_range"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ModelError) as caught:
        SchedulerConfig.from_dict({key: value}, source="scheduler/scheduler_config.json")
    message = caught.value.message
    assert message.startswith(f"scheduler/scheduler_config.json has {key} = {value!r:.20}")
    assert "what can be used is" in message
    assert len(message) < 250
    assert caught.value.remedy


def test_a_zero_terminal_ratio_ends_in_noise_alone() -> None:
    config = SchedulerConfig.from_dict(FILES["zero-snr"])
    plain = SchedulerConfig.from_dict(dict(FILES["zero-snr"]) | {"rescale_betas_zero_snr": False})
    table = alphas_cumprod(config, _DEFAULTS)
    assert table[-1] == 0
    assert table[0] == pytest.approx(alphas_cumprod(plain, _DEFAULTS)[0], rel=2e-7)
    assert (np.diff(table) < 0).all()
    divisible = with_smallest_signal(config, table)
    assert divisible[-1] == np.float32(SMALLEST_SIGNAL)
    np.testing.assert_array_equal(divisible[:-1], table[:-1])
    assert noise_ratios(divisible)[-1] == pytest.approx(4096)


def test_without_it_nothing_is_replaced() -> None:
    config = SchedulerConfig.from_dict(FILES["sd15"])
    table = alphas_cumprod(config, _DEFAULTS)
    np.testing.assert_array_equal(with_smallest_signal(config, table), table)


@pytest.mark.parametrize("zero", [False, True])
def test_betas_that_leave_no_signal_are_refused(zero: bool) -> None:
    config = SchedulerConfig.from_dict({"beta_end": 0.5, "rescale_betas_zero_snr": zero})
    with pytest.raises(ModelError, match=r"leave no signal at timestep \d+ of 1000") as caught:
        alphas_cumprod(config, _DEFAULTS)
    assert caught.value.remedy


@settings(deadline=None)
@given(
    train_steps=st.integers(2, 3000),
    start=st.floats(1e-6, 0.01),
    end=st.floats(1e-6, 0.1),
    schedule=st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"]),
    zero=st.booleans(),
)
def test_the_signal_only_falls_or_is_refused(
    train_steps: int, start: float, end: float, schedule: str, zero: bool
) -> None:
    config = SchedulerConfig.from_dict(
        {
            "num_train_timesteps": train_steps,
            "beta_start": start,
            "beta_end": end,
            "beta_schedule": schedule,
            "rescale_betas_zero_snr": zero,
        }
    )
    try:
        table = alphas_cumprod(config, _DEFAULTS)
    except ModelError:
        return
    assert table.shape == (train_steps,)
    assert table.dtype == np.float32
    assert (np.diff(table) <= 0).all()
    assert 0 <= table[-1] <= table[0] < 1
    assert np.isfinite(noise_ratios(with_smallest_signal(config, table))).all()
