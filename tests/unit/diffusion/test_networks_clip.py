"""Every tiny text encoder answers as transformers' does with the same weights."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.unit.diffusion import kept, tiny
from tests.unit.diffusion.cases import token_rows
from workers.diffusion.clip import ClipTextModel
from workers.diffusion.configs import ClipConfig
from workers.diffusion.weights import load_clip

TOLERANCE = 5e-6


def deviations(name: str) -> dict[str, float]:
    """Return the deviation of each of the encoder's answers."""
    component = kept.component(f"clip/{name}")
    projects = "text_projection.weight" in component.weights
    config = ClipConfig.read(component.source, component.config, projects=projects)
    encoder = ClipTextModel(config)
    load_clip(encoder, component, dtype=mx.float32)
    found = encoder(mx.array(token_rows(config.positions, component.config)))
    arrays: dict[str, tiny.Array] = {
        "last": np.asarray(found.last)[:, ::6],
        "penultimate": np.asarray(found.penultimate)[:, ::6],
        "pooled": np.asarray(found.pooled),
    }
    return {
        what: kept.deviation(array, kept.answers("clip")[f"{name}/{what}"])
        for what, array in arrays.items()
    }


@pytest.mark.parametrize("name", kept.names("clip"))
def test_a_text_encoder_answers_as_transformers_does(name: str) -> None:
    assert max(deviations(name).values()) < TOLERANCE, deviations(name)
