"""Every tiny VAE encodes and decodes as diffusers' does with the same weights."""

from __future__ import annotations

import mlx.core as mx
import pytest

from tests.unit.diffusion import kept, tiny
from workers.diffusion.configs import VaeConfig
from workers.diffusion.vae import AutoencoderKL
from workers.diffusion.weights import load_vae

TOLERANCE = 5e-5


def load(name: str) -> AutoencoderKL:
    component = kept.component(f"vae/{name}")
    vae = AutoencoderKL(VaeConfig.read(component.source, component.config))
    load_vae(vae, component, dtype=mx.float32)
    return vae


def pixels(name: str) -> mx.array:
    """Return the picture that is encoded, (1, 32, 48, 3), -1 to 1."""
    return mx.array(tiny.picture(f"inputs/{name}", 32, 48))[None].astype(mx.float32) / 127.5 - 1


@pytest.mark.parametrize("name", kept.names("vae"))
def test_the_encoders_mean_and_variance(name: str) -> None:
    mean, logvar = load(name).moments(pixels(name))
    answers = kept.answers("vae")
    assert kept.deviation(kept.channels_first(mean), answers[f"{name}/mean"]) < TOLERANCE
    assert kept.deviation(kept.channels_first(logvar), answers[f"{name}/logvar"]) < TOLERANCE


@pytest.mark.parametrize("name", kept.names("vae"))
def test_decoded_pictures(name: str) -> None:
    vae = load(name)
    side = vae.config.factor
    drawn = tiny.normal(
        f"inputs/{name}/latents", (1, vae.config.latent_channels, 32 // side, 48 // side)
    )
    scaled = (kept.channels_last(drawn) - vae.config.shift) * vae.config.scaling
    found = kept.channels_first(vae.decode(scaled))
    assert kept.deviation(found, kept.answers("vae")[f"{name}/decoded"]) < TOLERANCE


@pytest.mark.parametrize("name", kept.names("vae"))
def test_encoded_latents_are_scaled_and_noise_has_the_encoders_spread(name: str) -> None:
    vae = load(name)
    answers, config = kept.answers("vae"), vae.config
    mean = kept.channels_last(answers[f"{name}/mean"])
    spread = mx.exp(0.5 * kept.channels_last(answers[f"{name}/logvar"]))
    for noise in (None, mx.ones(mean.shape)):
        wanted = (mean + (0 if noise is None else spread) - config.shift) * config.scaling
        found = vae.encode(pixels(name), noise)
        close = kept.deviation(kept.channels_first(found), kept.channels_first(wanted))
        assert close < TOLERANCE
