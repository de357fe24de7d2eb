from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import JobError, ModelError, StudioqError
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
from workers.diffusion.samplers import SAMPLERS, Sampler, make_sampler
from workers.diffusion.schedule import Prediction, SchedulerConfig, Spacing

_REFERENCES = Path(__file__).parent / "references" / "samplers.npz"
_LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_SHAPE = (2, 3, 5, 4)
_STOCHASTIC = ("euler-a", "lcm")

# Relative to the largest element. From 100 steps on, roundings of float32 add up.
_TOLERANCE, _TOLERANCE_MANY = 2e-6, 1e-5
_MANY = 100

samplers = st.sampled_from(SAMPLERS)
spacings = st.sampled_from(["leading", "linspace", "trailing"])
predictions = st.sampled_from(["epsilon", "v_prediction", "sample"])


def _config(**changes: Any) -> SchedulerConfig:
    return SchedulerConfig.from_dict(_LATENT | changes)


def _run(case: Case) -> Answer:
    """Run ``case`` as the references were run."""
    sampler = make_sampler(
        case.sampler,
        SchedulerConfig.from_dict(FILES[case.file]),
        case.steps,
        strength=case.strength,
    )
    first, clean = mx.array(noise()), mx.array(picture())
    sample = sampler.start(first, clean if case.image else None)
    start, noised, denoised = sample, clean, clean
    for index, time in enumerate(sampler.timesteps):
        output = network(sampler.scale(sample, index), time, mx.array)
        if index == 0:
            denoised = sampler.denoised(output, index, sample)
        fresh = mx.array(fresh_noise(index)) if sampler.needs_noise(index) else None
        sample = sampler.step(output, index, sample, fresh)
        mx.eval(sample)
        if index + 1 == len(sampler.timesteps) // 2:
            noised = sampler.noised(clean, first, index + 1)
    return Answer(
        timesteps=np.array(sampler.timesteps, dtype=np.float32),
        start=np.array(start),
        noised=np.array(noised),
        denoised=np.array(denoised),
        final=np.array(sample),
    )


@pytest.fixture(scope="module")
def references() -> Mapping[Case, tuple[Answer, Array]]:
    """Return diffusers' answer to each case, and its final sample in double arithmetic."""
    with np.load(_REFERENCES) as stored:
        arrays = dict(stored)
    ends = np.cumsum(arrays["counts"])
    timesteps = np.split(arrays["timesteps"], ends[:-1])
    rows = zip(all_cases(), timesteps, arrays["answers"], arrays["exact"], strict=True)
    return {
        case: (
            Answer(timesteps=times, start=row[0], noised=row[1], denoised=row[2], final=row[3]),
            exact,
        )
        for case, times, row, exact in rows
    }


def _deviation(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("file", sorted(FILES))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_results_are_those_of_diffusers(
    references: Mapping[Case, tuple[Answer, Array]], sampler: str, file: str
) -> None:
    """Where diffusers' own float32 is further from its double, it may be so far from ours."""
    for case, (expected, exact) in references.items():
        if (case.file, case.sampler) != (file, sampler):
            continue
        tolerance = _TOLERANCE if case.steps < _MANY else _TOLERANCE_MANY
        found = _run(case)
        np.testing.assert_array_equal(found.timesteps, expected.timesteps, err_msg=str(case))
        for name in ("start", "noised", "denoised"):
            assert _deviation(getattr(found, name), getattr(expected, name)) < 1e-6, (case, name)
        rounding = _deviation(expected.final, exact)
        assert _deviation(found.final, exact) < tolerance, case
        assert _deviation(found.final, expected.final) < tolerance + rounding, case


def test_every_sampler_and_file_has_references(
    references: Mapping[Case, tuple[Answer, Array]],
) -> None:
    assert {case.sampler for case in references} == set(SAMPLERS)
    assert {case.file for case in references} == set(FILES)


def test_settings_that_no_file_has_are_those_of_the_samplers_class() -> None:
    """SD 1.5's file names no spacing: leading for DDIM, linspace for Euler and DPM++."""
    config = SchedulerConfig.from_dict(FILES["sd15"])
    assert make_sampler("ddim", config, 4).timesteps == (751, 501, 251, 1)
    assert make_sampler("euler", config, 4).timesteps == (999, 666, 333, 0)
    assert make_sampler("dpm++2m", config, 4).timesteps == (999, 749, 500, 250)
    saved = SchedulerConfig.from_dict(FILES["sd15-saved"])
    assert make_sampler("euler", saved, 4).timesteps == (751, 501, 251, 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_some_samplers_take_noise_and_never_in_the_last_step(name: str) -> None:
    sampler = make_sampler(name, _config(), 5)
    assert sampler.stochastic == (name in _STOCHASTIC)
    asked = [sampler.needs_noise(index) for index in range(5)]
    assert asked == [sampler.stochastic] * 4 + [False]


@pytest.mark.parametrize("name", _STOCHASTIC)
def test_a_step_that_lacks_its_noise_says_so(name: str) -> None:
    sampler = make_sampler(name, _config(), 5)
    ones = mx.ones(_SHAPE)
    sample = sampler.start(ones)
    with pytest.raises(ValueError, match="step 0 of this sampler needs fresh noise"):
        sampler.step(ones, 0, sample)


@pytest.mark.parametrize("name", ["dpm++2m", "dpm++2m-karras"])
def test_steps_that_build_on_the_last_one_are_not_skipped(name: str) -> None:
    sampler = make_sampler(name, _config(), 5)
    ones = mx.ones(_SHAPE)
    sample = sampler.step(ones, 0, sampler.start(ones))
    with pytest.raises(ValueError, match="step 2 of this sampler follows step 1"):
        sampler.step(ones, 2, sample)
    sampler.start(ones)
    with pytest.raises(ValueError, match="step 1 of this sampler follows step 0"):
        sampler.step(ones, 1, sample)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_starts_over_for_the_next_batch(name: str) -> None:
    sampler = make_sampler(name, _config(), 4)
    first, second = _denoise(sampler, mx.ones(_SHAPE)), _denoise(sampler, mx.ones(_SHAPE))
    np.testing.assert_array_equal(first, second)


def _denoise(sampler: Sampler, sample: mx.array) -> Array:
    """Run with a network that returns a part of what it is given, and noise of ones."""
    sample = sampler.start(sample)
    for index, _ in enumerate(sampler.timesteps):
        output = sampler.scale(sample, index) * 0.5
        sample = sampler.step(output, index, sample, mx.ones(sample.shape))
    return np.array(sample)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_does_not_depend_on_its_batch(name: str) -> None:
    drawn = np.random.Generator(np.random.PCG64(0)).standard_normal(_SHAPE, dtype=np.float32)
    together = _denoise(make_sampler(name, _config(), 6), mx.array(drawn))
    for index, one in enumerate(drawn):
        alone = _denoise(make_sampler(name, _config(), 6), mx.array(one[None]))
        np.testing.assert_array_equal(alone[0], together[index])


@pytest.mark.parametrize("name", SAMPLERS)
def test_arithmetic_is_float32_whatever_the_network_computes_in(name: str) -> None:
    sampler = make_sampler(name, _config(), 3)
    half = mx.ones(_SHAPE, dtype=mx.float16)
    sample = sampler.start(half)
    assert sample.dtype == mx.float32
    assert sampler.start(half, half).dtype == mx.float32
    assert sampler.denoised(half, 0, sample).dtype == mx.float32
    assert sampler.step(half, 0, sample, half).dtype == mx.float32


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_strength_of_0_does_nothing_to_the_picture(name: str) -> None:
    sampler = make_sampler(name, _config(), 20, strength=0)
    assert sampler.timesteps == ()
    assert not sampler.stochastic
    clean = mx.full((1, *_SHAPE[1:]), 3.0)
    started = sampler.start(mx.ones(_SHAPE), clean)
    np.testing.assert_array_equal(np.array(started), np.full(_SHAPE, 3.0))


@pytest.mark.parametrize("name", SAMPLERS)
def test_below_full_strength_a_picture_is_needed(name: str) -> None:
    sampler = make_sampler(name, _config(), 20, strength=0.5)
    with pytest.raises(ValueError, match="starts from a clean picture"):
        sampler.start(mx.ones(_SHAPE))


@settings(deadline=None)
@given(name=samplers, steps=st.integers(1, 50), strength=st.floats(0, 1))
def test_strength_leaves_the_last_steps(name: str, steps: int, strength: float) -> None:
    whole = make_sampler(name, _config(), steps)
    left = int(steps * strength)
    if left == 0 and strength > 0:
        with pytest.raises(JobError, match=f"leaves none of {steps} steps"):
            make_sampler(name, _config(), steps, strength=strength)
        return
    part = make_sampler(name, _config(), steps, strength=strength)
    assert part.timesteps == whole.timesteps[steps - left :]


@pytest.mark.parametrize(
    ("strength", "remedy"),
    [(0.3, "use a greater strength, or 4 steps"), (5e-324, "use a greater strength")],
)
def test_too_small_a_strength_says_how_many_steps_it_needs(strength: float, remedy: str) -> None:
    with pytest.raises(JobError) as caught:
        make_sampler("ddim", _config(), 3, strength=strength)
    assert caught.value.field == "strength"
    assert caught.value.remedy == remedy


@pytest.mark.parametrize(
    ("name", "steps", "strength", "field", "words"),
    [
        ("plms", 20, 1.0, "sampler", "there is no sampler 'plms'"),
        ("ddim", 0, 1.0, "steps", "0 steps cannot be done"),
        ("euler", 1001, 1.0, "steps", "1001 steps cannot be done: .* has 1 to 1000"),
        ("lcm", 51, 1.0, "steps", "51 steps are too many: the sampler lcm chooses among 50"),
        ("ddim", 1000, 1.0, "steps", "1000 steps reach timestep 1000"),
        ("dpm++2m", 1000, 1.0, "steps", "1000 steps do not fit"),
        ("ddim", 20, -0.1, "strength", "a strength of -0.1 is not between 0 and 1"),
        ("ddim", 20, 1.1, "strength", "a strength of 1.1 is not between 0 and 1"),
        ("ddim", 20, float("nan"), "strength", "a strength of nan is not between 0 and 1"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_field(
    name: str, steps: int, strength: float, field: str, words: str
) -> None:
    config = _config(timestep_spacing="leading", steps_offset=1)
    with pytest.raises(JobError, match=words) as caught:
        make_sampler(name, config, steps, strength=strength)
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["ddim", "lcm"])
def test_noise_predicted_from_noise_alone_is_refused(name: str) -> None:
    config = _config(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(ModelError, match="rescale_betas_zero_snr"):
        make_sampler(name, config, 20)
    make_sampler(name, config, 20, strength=0.5)
    make_sampler(name, replace(config, prediction_type="v_prediction"), 20)


def test_a_distillation_longer_than_the_schedule_is_refused() -> None:
    with pytest.raises(ModelError, match="original_inference_steps = 2000"):
        make_sampler("lcm", _config(original_inference_steps=2000), 4)


@settings(deadline=None)
@given(
    name=samplers,
    spacing=spacings,
    steps=st.integers(1, 1000),
    offset=st.integers(0, 1),
    prediction=predictions,
    zero=st.booleans(),
)
def test_any_number_of_steps_gives_as_many_finite_ones_or_a_reason(
    name: str, spacing: Spacing, steps: int, offset: int, prediction: Prediction, zero: bool
) -> None:
    config = _config(
        timestep_spacing=spacing,
        steps_offset=offset,
        prediction_type=prediction,
        rescale_betas_zero_snr=zero,
    )
    try:
        sampler = make_sampler(name, config, steps)
    except StudioqError as error:
        assert error.remedy
        return
    assert len(sampler.timesteps) == steps
    assert list(sampler.timesteps) == sorted(sampler.timesteps, reverse=True)
    assert 0 <= sampler.timesteps[-1] <= sampler.timesteps[0] <= 999 + offset
    assert np.isfinite(_denoise(sampler, mx.ones(1))).all()


def _levels(sampler: Sampler, index: int) -> tuple[float, float]:
    """Return the parts of picture and noise in what the network sees before step ``index``."""
    one, none = mx.ones(1), mx.zeros(1)
    signal = sampler.scale(sampler.noised(one, none, index), index)
    spread = sampler.scale(sampler.noised(none, one, index), index)
    return float(np.array(signal)[0]), float(np.array(spread)[0])


def _perfect(
    sampler: Sampler, index: int, prediction: Prediction, clean: mx.array, first: mx.array
) -> mx.array:
    """Return what a network that knows both would answer."""
    signal, spread = _levels(sampler, index)
    answers = {
        "epsilon": first,
        "sample": clean,
        "v_prediction": signal * first - spread * clean,
    }
    return answers[prediction]


@settings(deadline=None)
@given(
    name=samplers,
    spacing=spacings,
    steps=st.integers(1, 50),
    prediction=predictions,
    zero=st.booleans(),
    data=st.data(),
)
def test_the_network_sees_unit_variance_and_its_answer_gives_the_picture(
    name: str,
    spacing: Spacing,
    steps: int,
    prediction: Prediction,
    zero: bool,
    data: st.DataObject,
) -> None:
    config = _config(
        timestep_spacing=spacing,
        prediction_type=prediction,
        rescale_betas_zero_snr=zero and prediction != "epsilon",
    )
    sampler = make_sampler(name, config, steps)
    index = data.draw(st.integers(0, steps - 1))
    signal, spread = _levels(sampler, index)
    assert signal**2 + spread**2 == pytest.approx(1, abs=1e-5)
    clean, first = mx.array(picture()), mx.array(noise())
    sample = sampler.noised(clean, first, index)
    output = _perfect(sampler, index, prediction, clean, first)
    found = sampler.denoised(output, index, sample)
    np.testing.assert_allclose(np.array(found), picture(), atol=1e-5)


@settings(deadline=None)
@given(name=samplers, steps=st.integers(1, 40), strength=st.sampled_from([0.3, 0.7, 1.0]))
def test_a_picture_starts_at_the_level_of_the_first_step_and_ends_clean(
    name: str, steps: int, strength: float
) -> None:
    sampler = make_sampler(name, _config(), steps, strength=strength if steps > 3 else 1.0)
    clean, first = mx.array(picture()), mx.array(noise())
    started = np.array(sampler.start(first, clean))
    np.testing.assert_array_equal(started, np.array(sampler.noised(clean, first, 0)))
    end = sampler.noised(clean, first, len(sampler.timesteps))
    np.testing.assert_array_equal(np.array(end), picture())


@settings(deadline=None)
@given(name=samplers, spacing=spacings, steps=st.integers(1, 50), prediction=predictions)
def test_a_perfect_network_leads_back_to_the_picture(
    name: str, spacing: Spacing, steps: int, prediction: Prediction
) -> None:
    """Every sampler ends at the clean picture when the network knows it, noise or not."""
    config = _config(timestep_spacing=spacing, prediction_type=prediction)
    sampler = make_sampler(name, config, steps)
    clean = mx.array(picture())
    sample = sampler.start(mx.array(noise()), clean)
    for index, _ in enumerate(sampler.timesteps):
        left = _noise_in(sampler, index, sample, clean)
        output = _perfect(sampler, index, prediction, clean, left)
        sample = sampler.step(output, index, sample, mx.array(fresh_noise(index)))
    leftover = _leftover(name, spacing, steps)
    np.testing.assert_allclose(np.array(sample), picture(), atol=2e-4 + leftover)


def _noise_in(sampler: Sampler, index: int, sample: mx.array, clean: mx.array) -> mx.array:
    """Return the noise that ``sample`` holds beside ``clean`` before step ``index``."""
    signal, spread = _levels(sampler, index)
    return (sampler.scale(sample, index) - signal * clean) / spread


def _leftover(name: str, spacing: Spacing, steps: int) -> float:
    """Return how far from clean DDIM may end: other spacings than leading miss the end."""
    return 0.1 if name == "ddim" and spacing != "leading" else 0.0
