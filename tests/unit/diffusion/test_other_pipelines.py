"""Pipelines that share Stable Diffusion's networks and make other pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.errors import ModelError
from workers.diffusion.folder import read_folder


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionDepth2ImgPipeline",
        "StableDiffusionInstructPix2PixPipeline",
        "StableDiffusionXLInstructPix2PixPipeline",
        "StableDiffusionLatentUpscalePipeline",
        "StableDiffusionXLAdapterPipeline",
        "StableDiffusionControlNetPipeline",
    ],
)
def test_they_are_refused_by_name_whatever_their_parts(tmp_path: Path, name: str) -> None:
    index = {
        "_class_name": name,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"is a {name}; what can be used is"):
        read_folder(tmp_path)
