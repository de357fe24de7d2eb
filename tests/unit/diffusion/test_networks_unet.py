"""Every tiny UNet answers as diffusers' does with the same weights."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from tests.unit.diffusion import kept, tiny
from tests.unit.diffusion.cases import TIME_IDS, TIMESTEPS, unet_sizes
from workers.diffusion import group_norm
from workers.diffusion.components import Component
from workers.diffusion.configs import UNetConfig
from workers.diffusion.unet import Added, UNet2DConditionModel
from workers.diffusion.weights import load_unet

TOLERANCE, HALF_TOLERANCE = 1e-5, 5e-3


def load(component: Component, dtype: mx.Dtype = mx.float32) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(UNetConfig.read(component.source, component.config))
    load_unet(unet, component, dtype=dtype)
    return unet


def ask(unet: UNet2DConditionModel, name: str, size: tuple[int, int], timestep: float) -> Any:
    """Return the network's answer as (N, C, H, W)."""
    config, key = unet.config, "x".join(map(str, size))
    drawn = tiny.normal(f"inputs/{name}/{key}", (2, config.in_channels, *size))
    width = config.cross_dims[0]
    context = mx.array(tiny.normal(f"inputs/{name}/context", (2, 7, width))).astype(unet.dtype)
    times = unet.read_times(mx.array([timestep]), added(unet, name), guidance(unet, name))
    latents = kept.channels_last(drawn).astype(unet.dtype)
    return kept.channels_first(unet.denoise(latents, times, unet.read_text(context)))


def added(unet: UNet2DConditionModel, name: str) -> Added | None:
    if unet.config.text_time is None:
        return None
    pooled = mx.array(tiny.normal(f"inputs/{name}/text", (2, 20)))
    return Added(pooled=pooled, sizes=mx.array(TIME_IDS))


def guidance(unet: UNet2DConditionModel, name: str) -> mx.array | None:
    width = unet.config.time_cond_dim
    if width is None:
        return None
    return mx.array(tiny.normal(f"inputs/{name}/cond", (2, width))).astype(unet.dtype)


def worst(unet: UNet2DConditionModel, name: str) -> float:
    """Return the largest deviation over sizes and timesteps."""
    return max(
        kept.deviation(
            ask(unet, name, size, timestep),
            kept.answers("unet")[f"{name}/{'x'.join(map(str, size))}/{timestep}"],
        )
        for size in unet_sizes(name)
        for timestep in TIMESTEPS
    )


@pytest.mark.parametrize("name", kept.names("unet"))
def test_a_unet_answers_as_diffusers_does(name: str) -> None:
    assert worst(load(kept.component(f"unet/{name}")), name) < TOLERANCE


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "odd-widths"])
def test_a_unet_in_half_precision_stays_close(name: str) -> None:
    unet = load(kept.component(f"unet/{name}"), mx.float16)
    assert unet.dtype == mx.float16
    assert worst(unet, name) < HALF_TOLERANCE


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "odd-widths"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", TOLERANCE), ("float16", HALF_TOLERANCE)]
)
def test_a_unet_whose_norms_are_products_answers_alike(
    name: str, dtype: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_norm, "by_rows", group_norm.by_products)
    assert worst(load(kept.component(f"unet/{name}"), getattr(mx, dtype)), name) < tolerance


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_merged_projections_change_nothing(name: str) -> None:
    unet = load(kept.component(f"unet/{name}"))
    unet.fuse()
    assert worst(unet, name) < TOLERANCE
