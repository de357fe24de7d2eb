"""The networks inside a single-file checkpoint: which tensor belongs to which, under which name.

The rule this module protects: every tensor of the file is used, or known by name to be of no use.
Anything else is an error that names it. Tensors are renamed and cut, not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import mlx.core as mx

from daemon.errors import ModelError
from workers.diffusion.single_file_configs import (
    Encoder,
    Family,
    count_layers,
    count_vae,
    read_layout,
)
from workers.diffusion.single_file_kinds import UNET, VAE, is_ignored
from workers.diffusion.single_file_names import (
    CLIP_PLACES,
    FUSED,
    PROJECTIONS,
    Places,
    openclip_places,
    rename,
    unet_places,
    vae_places,
)
from workers.diffusion.tensor_files import Shape, TensorFile

Weights = dict[str, mx.array]

_WHOLE_TOWER = 24  # layers of SD 2.x's text tower as OpenCLIP published it


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network in the file: how its tensors' names begin, and their translation.

    ``unused``: the beginning of names that are this part's and not needed.
    """

    name: str
    prefix: str
    places: Places
    unused: str | None = None

    def rename(self, name: str) -> str | None:
        """Return a tensor's name in diffusers; None if it is not known."""
        return rename(name.removeprefix(self.prefix), self.places)

    def leaves_out(self, name: str) -> bool:
        """Say whether the tensor is of no use in this part."""
        return self.unused is not None and name.startswith(self.prefix + self.unused)


def find_parts(file: TensorFile, family: Family) -> list[Part]:
    """Return UNet, VAE and text encoders, named as a diffusers folder names them.

    Raises:
        ModelError: the UNet's blocks are not as those of the family.
    """
    layout = read_layout(file.path.name, inside(file, UNET))
    blocks, layers = count_vae(inside(file, VAE))
    return [
        Part(name="unet", prefix=UNET, places=unet_places(layout)),
        Part(name="vae", prefix=VAE, places=vae_places(blocks, layers)),
        *(_encoder(file, name, encoder) for name, encoder in family.encoders.items()),
    ]


def inside(file: TensorFile, prefix: str) -> dict[str, Shape]:
    """Return the shapes of the tensors whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): shape
        for name, shape in file.shapes.items()
        if name.startswith(prefix)
    }


def _encoder(file: TensorFile, name: str, encoder: Encoder) -> Part:
    prefix = next(
        prefix for prefix in encoder.prefixes if any(key.startswith(prefix) for key in file.shapes)
    )
    if not encoder.openclip:
        return Part(name=name, prefix=prefix, places=CLIP_PLACES)
    names = inside(file, prefix)
    layers = count_layers(names)
    # What diffusers exports again lacks the last layer and the projection already.
    whole = "text_projection" in names or layers == _WHOLE_TOWER
    if not encoder.skips_last or not whole:
        return Part(
            name=name, prefix=prefix, places=openclip_places(layers, projects=encoder.projects)
        )
    return Part(
        name=name,
        prefix=prefix,
        places=openclip_places(layers - 1, projects=encoder.projects),
        unused=f"transformer.resblocks.{layers - 1}.",
    )


def take_weights(file: TensorFile, parts: list[Part]) -> dict[str, Weights]:
    """Return each part's tensors under diffusers' names, in PyTorch's layouts.

    Raises:
        ModelError: a tensor is unknown, or not of floating-point numbers.
    """
    weights: dict[str, Weights] = {part.name: {} for part in parts}
    for name in file.shapes:
        part = next((part for part in parts if name.startswith(part.prefix)), None)
        new = part.rename(name) if part is not None else None
        if part is not None and new is not None:
            weights[part.name].update(_converted(new, file.floats(name)))
        elif not is_ignored(name) and not (part is not None and part.leaves_out(name)):
            raise _unknown(file, name)
    return weights


def shapes_of(weights: Mapping[str, mx.array]) -> dict[str, Shape]:
    """Return the shapes of tensors."""
    return {name: tuple(array.shape) for name, array in weights.items()}


def _converted(name: str, array: mx.array) -> Iterator[tuple[str, mx.array]]:
    """Yield what the tensor is in diffusers' layout: linear layers are matrices (out, in)."""
    if FUSED in name:
        for projection, piece in zip(PROJECTIONS, mx.split(array, 3), strict=True):
            yield name.replace(FUSED, projection), piece
    elif name == "text_projection.weight":
        yield name, array.T
    elif "mid_block.attentions" in name and ".to_" in name and array.ndim > 2:
        yield name, array.reshape(array.shape[:2])
    else:
        yield name, array


def _unknown(file: TensorFile, name: str) -> ModelError:
    return ModelError(
        f"{file.path.name} has the tensor {name} of shape {file.shapes[name]}, for which there is "
        "no place in Stable Diffusion 1.x, 2.x or SDXL",
        remedy="use a checkpoint that holds nothing else, or the model's diffusers folder",
    )
