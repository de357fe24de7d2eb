"""Both stages learn, go on exactly where they stopped, and give a model's folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from daemon.errors import ModelError, NonFiniteError
from workers.diffusion.load import load_diffusion_model
from workers.shapes import stages
from workers.shapes.captions import all_scenes, held_out_pairs
from workers.shapes.checkpoint import read_average, read_checkpoint, read_progress
from workers.shapes.drawing import draw_blocks
from workers.shapes.export import weight_bytes
from workers.shapes.flat import Layout
from workers.shapes.objectives import (
    EMPTY_SHARE,
    NOISY_FROM,
    NOISY_SHARE,
    TextToVelocity,
    VaeObjective,
    VelocityObjective,
    noise_levels,
)
from workers.shapes.optimizer import Rates
from workers.shapes.sizes import SMALL, build_text_encoder, build_unet, build_vae
from workers.shapes.stages import Plan
from workers.shapes.trainer import LOG, OPTIONS, Options, train
from workers.shapes.vocabulary import caption_tokens, caption_vocabulary

STEPS = {"vae": 60, "unet": 30}


def options(steps: int, *, seed: int = 0, precision: str = "float32") -> Options:
    rates = Rates(learning_rate=5e-3, steps=steps, warmup=5, average=0.9)
    return Options(rates=rates, batch=8, seed=seed, precision=precision, log_every=10)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A run in which both stages were trained."""
    made = Plan(folder=tmp_path_factory.mktemp("run"), pool=64, sizes=SMALL, processes=1)
    stages.train_vae(made, options(STEPS[stages.VAE]))
    stages.train_unet(made, options(STEPS[stages.UNET]))
    return made


def losses(folder: Path) -> list[float]:
    lines = (folder / LOG).read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize(("stage", "share"), [("vae", 0.5), ("unet", 0.9)])
def test_the_loss_falls(plan: Plan, stage: str, share: float) -> None:
    course = losses(plan.folder / stage)
    assert len(course) == STEPS[stage] / 10
    assert course[-1] < share * course[0]


def test_the_log_and_the_options_say_how_it_was_trained(plan: Plan) -> None:
    line = json.loads((plan.folder / "unet" / LOG).read_text().splitlines()[-1])
    assert line["step"] == STEPS["unet"]
    assert line["steps_per_second"] > 0
    said = json.loads((plan.folder / "unet" / OPTIONS).read_text())
    assert said["batch"] == 8
    assert said["pool"] == 64
    assert said["rates"]["learning_rate"] == 5e-3
    assert read_progress(plan.folder / "unet").step == STEPS["unet"]


class Stopping:
    """A clock that raises when it is read for the ``limit``-th time, as a kill would stop."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def __call__(self) -> float:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return 0.0


def vae_objective() -> VaeObjective:
    mx.random.seed(1)
    module = build_vae(SMALL)
    pictures = np.random.Generator(np.random.PCG64(5)).integers(0, 256, (16, 16, 16, 3))
    return VaeObjective(module=module, pictures=mx.array(pictures.astype(np.uint8)))


def velocity_objective() -> VelocityObjective:
    mx.random.seed(1)
    module = TextToVelocity(build_unet(SMALL), build_text_encoder(SMALL, caption_vocabulary()))
    return VelocityObjective(
        module=module,
        latents=mx.random.normal((16, 8, 8, 4)),
        captions=np.arange(100, 116, dtype=np.int32),
        tokens=mx.array(caption_tokens()),
    )


Objectives = Callable[[], VaeObjective] | Callable[[], VelocityObjective]


@pytest.mark.parametrize("objective", [vae_objective, velocity_objective])
def test_a_stage_that_was_killed_goes_on_exactly(objective: Objectives, tmp_path: Path) -> None:
    whole = train(objective(), options(8), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        # Any moment will do: the clock is read several times a step.
        train(objective(), replace(options(8), save_minutes=-1.0), tmp_path / "parts", Stopping(23))
    stopped = read_progress(tmp_path / "parts").step
    assert 0 < stopped < 8
    again = train(objective(), options(8), tmp_path / "parts")
    assert read_progress(tmp_path / "parts").step == 8
    for name, vector in whole.vectors().items():
        assert mx.array_equal(again.vectors()[name], vector), name


def test_a_stage_that_has_ended_does_nothing_more(tmp_path: Path) -> None:
    first = train(vae_objective(), options(3), tmp_path)
    second = train(vae_objective(), options(3), tmp_path)
    assert mx.array_equal(first.weights, second.weights)


def test_minutes_end_a_stage_and_count_over_its_runs(tmp_path: Path) -> None:
    ticks = iter(range(10_000))
    limited = options(1000)
    limited = replace(limited, rates=replace(limited.rates, minutes=0.5))
    train(vae_objective(), limited, tmp_path, lambda: float(next(ticks)))
    progress = read_progress(tmp_path)
    assert 0 < progress.step < 40
    assert progress.seconds >= 30
    train(vae_objective(), limited, tmp_path, lambda: float(next(ticks)))
    assert read_progress(tmp_path).step == progress.step


def test_other_options_do_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    train(vae_objective(), options(1), tmp_path)
    with pytest.raises(ModelError, match=r"was made with.*'seed': 0.*asked for.*'seed': 1"):
        train(vae_objective(), options(2, seed=1), tmp_path)


def test_a_damaged_checkpoint_is_said_and_an_interrupted_one_is_not_used(tmp_path: Path) -> None:
    train(vae_objective(), options(1), tmp_path)
    layout = Layout(build_vae(SMALL))
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    (tmp_path / "checkpoint.new").mkdir()
    saved = read_checkpoint(tmp_path, layout, options(1).identity())
    assert saved is not None
    assert saved[1].step == 1
    (tmp_path / "checkpoint.old" / "first.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="cannot be read"):
        read_checkpoint(tmp_path, layout, options(1).identity())


def test_a_loss_that_is_not_a_number_ends_the_stage(tmp_path: Path) -> None:
    objective = velocity_objective()
    broken = replace(objective, latents=mx.full((16, 8, 8, 4), float("nan")))
    with pytest.raises(NonFiniteError, match="the loss became nan by step"):
        train(broken, options(10), tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_weights_that_are_not_numbers_are_not_saved(tmp_path: Path) -> None:
    objective = velocity_objective()
    broken = replace(objective, latents=mx.full((16, 8, 8, 4), float("nan")))
    often = replace(options(10), save_minutes=-1.0)
    with pytest.raises(NonFiniteError, match="the weights are not finite after step 1"):
        train(broken, often, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_reduced_precision_trains_float32_weights(tmp_path: Path) -> None:
    state = train(vae_objective(), options(2, precision="bfloat16"), tmp_path)
    exact = train(vae_objective(), options(2), tmp_path / "float32")
    assert state.weights.dtype == mx.float32
    assert not mx.array_equal(state.weights, exact.weights)
    assert mx.allclose(state.weights, exact.weights, atol=0.02)


def test_captions_of_training_are_their_pictures_and_a_tenth_is_empty() -> None:
    objective = velocity_objective()
    drawn = objective.draw(np.random.Generator(np.random.PCG64(1)), 5000)
    rows, captions, timesteps = drawn
    empty = captions == len(all_scenes())
    assert abs(empty.mean() - EMPTY_SHARE) < 0.02
    assert np.array_equal(captions[~empty], 100 + rows[~empty])
    assert timesteps.min() == 0
    assert timesteps.max() == 999
    noisy = NOISY_SHARE + (1 - NOISY_SHARE) * (1000 - NOISY_FROM) / 1000
    assert abs((timesteps >= NOISY_FROM).mean() - noisy) < 0.02


def test_the_noise_is_stable_diffusion_s() -> None:
    signal, noise = noise_levels()
    assert np.allclose(signal**2 + noise**2, 1)
    assert signal[0] ** 2 == pytest.approx(1 - 0.00085)
    assert signal[-1] ** 2 == pytest.approx(0.00466, abs=1e-4)


def test_no_picture_of_a_held_out_pair_is_trained_on(plan: Plan) -> None:
    for block in draw_blocks(3000, 5, 8, processes=1):
        shown = {frozenset(all_scenes()[place].things) for place in block.scenes.tolist()}
        assert not shown & held_out_pairs()


def test_the_autoencoder_is_checked_before_the_unet_is_trained_on_it(plan: Plan) -> None:
    found = json.loads((plan.folder / "vae" / stages.RECONSTRUCTION).read_text())
    assert found["pictures"] == plan.pool
    assert 0 <= found["shape"] <= 1


def test_processes_that_draw_do_not_import_mlx() -> None:
    code = (
        "import sys, workers.shapes.train, workers.shapes.drawing; print('mlx.core' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "False"


def test_the_unet_needs_a_trained_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no checkpoint"):
        stages.train_unet(Plan(folder=tmp_path, pool=8, sizes=SMALL), options(1))


def test_latents_are_scaled_to_a_deviation_of_one(plan: Plan) -> None:
    vae = stages.trained_vae(plan)
    pool = next(iter(draw_blocks(64, 1, SMALL.picture, processes=1)))
    latents = np.array(vae.encode(mx.array(pool.pictures).astype(mx.float32) / 127.5 - 1))
    assert latents.std() == pytest.approx(1, abs=0.05)


@pytest.fixture(scope="module")
def exported(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models") / "shapes"
    stages.export_model(plan, target)
    return target


def test_the_folder_loads_as_any_model_and_holds_the_averages(plan: Plan, exported: Path) -> None:
    model = load_diffusion_model(exported, mx.float32)
    assert model.size == (SMALL.picture, SMALL.picture)
    assert model.vae.config.scaling == stages.trained_vae(plan).config.scaling
    named = dict(tree_flatten(model.unet.parameters()))
    for name, array in read_average(plan.folder / "unet").items():
        part, _, rest = name.partition(".")
        if part == "unet":
            assert mx.allclose(named[rest], array, rtol=1e-3, atol=1e-6), name


def test_the_folder_is_in_float16_and_pytorch_s_layout(exported: Path) -> None:
    tensors = mx.load(str(exported / "unet" / "diffusion_pytorch_model.safetensors"))
    assert isinstance(tensors, dict)
    assert {array.dtype for array in tensors.values()} == {mx.float16}
    assert tensors["conv_in.weight"].shape == (8, 4, 3, 3)
    text = mx.load(str(exported / "text_encoder" / "model.safetensors"))
    assert isinstance(text, dict)
    assert all(name.startswith("text_model.") for name in text)
    assert weight_bytes(exported) < 1e6


def test_a_weight_that_float16_cannot_hold_is_refused(plan: Plan, tmp_path: Path) -> None:
    from workers.shapes import export

    huge = {"unet.conv_in.weight": mx.full((8, 3, 3, 4), 1e6)}
    with pytest.raises(NonFiniteError, match=r"conv_in\.weight holds numbers"):
        export.write_model(tmp_path, SMALL, unet=huge, text_encoder={}, vae={}, scaling=1.0)
