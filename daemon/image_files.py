"""What an image model's files must hold, as far as JSON and the headers of weights tell it.

The rule this module protects: what is missing, cut short or of another kind is refused before a
job is queued, by its place in the model, and nothing is asked for that a whole model lacks.
Imports no MLX: whether the tensors fit their networks is the engine's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.errors import ModelError
from daemon.image_models import INDEX, NETWORKS, SPARE_PARTS, checkpoint_file, tensor_names
from daemon.regular_files import read_regular
from daemon.safetensors_header import read_safetensors_header

# What pipelines of Stable Diffusion are called; parts and words that make another use of one.
PIPELINES = ("StableDiffusion", "LatentConsistencyModel")
STEERING_PARTS = ("controlnet", "adapter", "depth_estimator", "low_res_scheduler", "motion_adapter")
OTHER_USES = ("ControlNet", "Adapter", "Depth2Img", "Pix2Pix", "Upscale", "GLIGEN", "LDM3D")

# The pipelines that mflux runs (docs/mflux.md).
MFLUX_PIPELINES = ("FluxPipeline", "Flux2KleinPipeline", "ZImagePipeline", "QwenImagePipeline")

# What diffusers and transformers call a part's weights; the first that is there counts.
_STEMS = ("diffusion_pytorch_model", "model")
_VARIANTS = ("", ".fp16", ".fp32", ".bf16", ".non_ema")

# How the tensors of each part of a single-file checkpoint begin.
_CHECKPOINT_PARTS = {
    "UNet": ("model.diffusion_model.input_blocks.0.0.weight",),
    "VAE": ("first_stage_model.",),
    "text encoder": ("cond_stage_model.", "conditioner.embedders."),
}

# The parts of Stable Diffusion whose configuration says how wide the network is.
_SIZED = frozenset({"unet", "vae"})

_AGAIN = "copy or download the whole folder again"

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """A folder in diffusers' layout; ``name`` is what messages call it."""

    name: str
    path: Path

    def check(self) -> None:
        """Refuse the folder if no pictures can be made with it.

        Raises:
            ModelError: names the file or part, and what is wrong with it.
        """
        if not (self.path / INDEX).is_file():
            raise ModelError(f"{self.name} has no {INDEX}", remedy=_AGAIN)
        index = self.read(INDEX)
        if not any(part in index for part in NETWORKS):
            raise ModelError(
                f"{self.name}: {INDEX} names no parts of an image model", remedy=_AGAIN
            )
        if index.get("_class_name") in MFLUX_PIPELINES:
            self.read("transformer/config.json")
            for part in _listed_parts(index):
                self._check_mflux_part(part)
            return
        _check_pipeline(self.name, index)
        for part in _stable_diffusion_parts(index):
            self._check_part(part)

    def read(self, place: str) -> Json:
        """Return the JSON object in the file at ``place``, such as ``unet/config.json``.

        Raises:
            ModelError: it is missing or cannot be read.
        """
        return _read_object(self.name, place, self.path / place)

    def weights(self, part: str) -> list[Path]:
        """Return the files of a part's weights: one, or the shards that an index names.

        Raises:
            ModelError: there are none that can be read, or one of them is missing.
        """
        for stem in _STEMS:
            for variant in _VARIANTS:
                single = self.path / part / f"{stem}{variant}.safetensors"
                if single.is_file():
                    return [single]
                index = f"{part}/{stem}.safetensors.index{variant}.json"
                if (self.path / index).is_file():
                    return self._shards(part, index)
        pickled = next((file.name for file in sorted((self.path / part).glob("*.bin"))), None)
        found = f"only {pickled}, a pickle, which is never read" if pickled else "none"
        raise ModelError(
            f"{self.name} is incomplete: {part}/ needs weights in safetensors, and has {found}",
            remedy="use the model's version in safetensors",
        )

    def _shards(self, part: str, index: str) -> list[Path]:
        listed = self.read(index).get("weight_map")
        if not isinstance(listed, dict):
            raise ModelError(f"{self.name}: {index} has no weight_map", remedy=_AGAIN)
        shards = sorted({str(file) for file in listed.values()})
        for shard in shards:
            if "/" in shard or not (self.path / part / shard).is_file():
                raise self._lacks(f"{part}/{shard}")
        return [self.path / part / shard for shard in shards]

    def _check_part(self, part: str) -> None:
        if not (self.path / part).is_dir():
            raise self._lacks(f"{part}/")
        if part == "scheduler":
            self.read("scheduler/scheduler_config.json")
        if part in NETWORKS:
            self._check_config(part)
            for file in self.weights(part):
                _check_header(f"{self.name}: {part}/{file.name}", file)

    def _check_mflux_part(self, part: str) -> None:
        """Check what mflux reads; ``mflux-save`` numbers its shards and writes no config."""
        folder = self.path / part
        if not folder.is_dir():
            raise self._lacks(f"{part}/")
        if part == "scheduler":
            self.read("scheduler/scheduler_config.json")
        if part in NETWORKS:
            for file in sorted(folder.glob("[0-9]*.safetensors")) or self.weights(part):
                _check_header(f"{self.name}: {part}/{file.name}", file)

    def _check_config(self, part: str) -> None:
        config = self.read(f"{part}/config.json")
        if part in _SIZED and "block_out_channels" not in config:
            raise ModelError(
                f"{self.name}: {part}/config.json has no block_out_channels, the widths of its "
                "network",
                remedy="use the config.json that belongs to the weights",
            )

    def _lacks(self, place: str) -> ModelError:
        return ModelError(f"{self.name} is incomplete: it has no {place}", remedy=_AGAIN)


def check_checkpoint(name: str, path: Path) -> None:
    """Refuse a single-file checkpoint that lacks a part, or whose sidecar cannot be read.

    ``path`` is the file or a folder that holds it alone.

    Raises:
        ModelError: names what is wrong.
    """
    file = checkpoint_file(path)
    if file is None:
        raise ModelError(f"{name} is not one single checkpoint file", remedy=_AGAIN)
    names = tensor_names(file)
    missing = [
        part
        for part, begins in _CHECKPOINT_PARTS.items()
        if not any(tensor.startswith(begins) for tensor in names)
    ]
    if missing:
        raise ModelError(
            f"{name} is no whole model of Stable Diffusion: {file.name} has no "
            f"{' and no '.join(missing)}",
            remedy="use a checkpoint that holds UNet, VAE and text encoder",
        )
    sidecar = file.with_suffix(".json")
    if sidecar.is_file():
        _read_object(name, sidecar.name, sidecar)


def is_mflux(path: Path) -> bool:
    """Return whether the model at ``path`` is one that mflux runs."""
    try:
        return _read_object(path.name, INDEX, path / INDEX).get("_class_name") in MFLUX_PIPELINES
    except ModelError:
        return False


def is_listed(index: Json, part: str) -> bool:
    """Return whether the index names the part; one that is left out is null or a pair of nulls."""
    entry = index.get(part)
    return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None


def _listed_parts(index: Json) -> Iterator[str]:
    for part in index:
        named = bool(part) and not part.startswith(("_", ".")) and "/" not in part
        if named and part not in SPARE_PARTS and is_listed(index, part):
            yield part


def _stable_diffusion_parts(index: Json) -> Iterator[str]:
    yield from ("unet", "vae", "scheduler")
    for encoder in ("text_encoder", "text_encoder_2"):
        if is_listed(index, encoder):
            yield from (encoder, encoder.replace("text_encoder", "tokenizer"))


def _check_pipeline(name: str, index: Json) -> None:
    kind = str(index.get("_class_name", "pipeline without a class name"))
    steering = next((part for part in STEERING_PARTS if is_listed(index, part)), None)
    other = steering is not None or any(use in kind for use in OTHER_USES)
    if other or not kind.startswith(PIPELINES) or not is_listed(index, "unet"):
        beside = f" with the part {steering}" if steering else ""
        raise ModelError(
            f"{name} is a {kind}{beside}; what can be used is Stable Diffusion 1.x, 2.x and SDXL",
            remedy="choose another model; studioq models lists those that are there",
        )
    if not is_listed(index, "text_encoder"):
        if is_listed(index, "text_encoder_2"):
            raise ModelError(
                f"{name} is SDXL's refiner, which finishes another model's pictures",
                remedy="use the base model, such as stable-diffusion-xl-base-1.0",
            )
        raise ModelError(
            f"{name}: {INDEX} names no text encoder", remedy="use the whole pipeline's folder"
        )


def _check_header(place: str, file: Path) -> None:
    try:
        read_safetensors_header(file, name=place)
    except OSError as error:
        raise ModelError(
            f"{place} cannot be read: {error.strerror}",
            remedy="let the daemon's account read the model's files",
        ) from None


def _read_object(name: str, place: str, file: Path) -> Json:
    try:
        found = json.loads(read_regular(file))
    except FileNotFoundError:
        raise ModelError(f"{name} is incomplete: it has no {place}", remedy=_AGAIN) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name}: {place} cannot be read: {error}", remedy=_AGAIN) from None
    if not isinstance(found, dict):
        raise ModelError(f"{name}: {place} is no JSON object", remedy=_AGAIN)
    return found
