"""Previews of the batch under way, every few steps.

The rule this module protects: a preview is made of what has been computed anyway.
"""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np

from daemon.specs import DiffuseSpec
from workers.diffusion import autoencode
from workers.diffusion.denoise import Step
from workers.diffusion.load import DiffusionModel
from workers.diffusion.pictures import Floats
from workers.diffusion.preview import previewer, write_preview


class Previews:
    """Writes ``preview.png`` into the attempt's folder."""

    def __init__(self, folder: Path, spec: DiffuseSpec, model: DiffusionModel) -> None:
        self._folder = folder
        self._every = spec.preview_every
        self._vae = model.vae
        config = model.vae.config
        self._draw = previewer(config.scaling, config.latent_channels, self._decode)

    def show(self, step: Step) -> None:
        """Replace the preview if it is this step's turn."""
        if self._every and (step.index + 1) % self._every == 0:
            write_preview(self._folder, self._draw(np.array(step.clean)))

    def _decode(self, latents: Floats) -> Floats:
        return np.array(autoencode.decode(self._vae, mx.array(latents)))
