"""Write ``tests/unit/diffusion/references``: what diffusers and transformers make of tiny networks.

Run from the project's folder, in an environment that has torch, diffusers and transformers besides
this project's own requirements: ``python -m tests.references.make_networks``. The tests read what
is written here and need none of these. Weights are not written: see ``tiny``.
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline

from tests.references import folders, networks, pipelines, tokens
from tests.unit.diffusion import tiny
from tests.unit.diffusion.cases import PROMPT

PLACE = Path(__file__).parents[1] / "unit" / "diffusion" / "references"

# The forms of each folder: as saved now, and as published.
FORMS = {"sd1": ("sd1", "sd1-old"), "sd2": ("sd2",), "sdxl": ("sdxl", "sdxl-old")}
NO_CHECKER: dict[str, Any] = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}


def main() -> None:
    """Write everything anew; what other scripts keep in the same place stays."""
    torch.set_num_threads(1)
    shutil.rmtree(PLACE / "folders", ignore_errors=True)
    PLACE.mkdir(parents=True, exist_ok=True)
    described, answers = networks.run_all()
    _write_json("networks.json.gz", described)
    for kind, found in answers.items():
        _write_arrays(f"{kind}.npz", found)
    _write_folders({name: one["parameters"] for name, one in described.items()})
    _write_json("tokens.json.gz", tokens.run_all(_tokenizers()))
    _write_arrays("pipelines.npz", pipelines.run_all())


def _write_json(name: str, data: Any) -> None:
    packed = gzip.compress(json.dumps(data).encode(), mtime=0)
    (PLACE / name).write_bytes(packed)


def _write_arrays(name: str, arrays: Mapping[str, tiny.Array]) -> None:
    wrong = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    assert not wrong, wrong
    single: dict[str, Any] = {key: array.astype(np.float32) for key, array in arrays.items()}
    np.savez_compressed(PLACE / name, **single)


def _write_folders(shapes: Mapping[str, Any]) -> None:
    """Write the folders in their new and old forms, each read back by diffusers as a check."""
    place = PLACE / "folders"
    for name in folders.NETWORKS:
        folders.save(place / name, name, getattr(folders, name)())
    folders.save_old_sd1(place / "sd1-old", place / "sd1", shapes)
    folders.save_old_sdxl(place / "sdxl-old", place / "sdxl", shapes)
    for name, forms in FORMS.items():
        answer = _two_steps(getattr(folders, name)())
        for form in forms:
            found = _two_steps(_loaded(place / form, shapes))
            assert (found - answer).abs().max() < 1e-5 * answer.abs().max(), form


def _loaded(folder: Path, shapes: Mapping[str, Any]) -> Any:
    """Return the pipeline that diffusers makes of a folder."""
    absent = {} if "XL" in (folder / "model_index.json").read_text() else NO_CHECKER
    with tempfile.TemporaryDirectory() as written:
        tiny.write_folder(Path(written), folder, shapes)
        return DiffusionPipeline.from_pretrained(written, **absent)


def _two_steps(pipeline: Any) -> Any:
    """Return the latents after two steps with the folder's own sampler."""
    latents = torch.from_numpy(tiny.normal("two-steps", (1, 4, 6, 8)))
    plain: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent"}
    return pipeline(PROMPT, latents=latents, height=48, width=64, **plain).images


def _tokenizers() -> dict[str, tuple[Path, ...]]:
    """Return the folders of tokenizers that pad with the end token, and with "!"."""
    place = PLACE / "folders"
    return {
        "end": (place / "sd1/tokenizer", place / "sd1-old/tokenizer"),
        "exclamation": (place / "sd2/tokenizer", place / "sdxl-old/tokenizer_2"),
    }


if __name__ == "__main__":
    main()
