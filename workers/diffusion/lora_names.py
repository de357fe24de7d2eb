"""The names under which LoRA files address a model's layers.

The rule this module protects: names are never taken apart. Every name that a known program would
give to a layer of the model at hand is written down, and a file's name is looked up whole.

Known are kohya's sd-scripts (with diffusers' and with the original block names, which SDXL files
have), PEFT, diffusers from its first LoRA format on, and ComfyUI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlx import nn

from workers.diffusion.lora_layers import Layer
from workers.diffusion.single_file_names import UNetLayout, rename, unet_places

# transformers' name of a projection, and what diffusers called it before version 0.17.
_OLD_TEXT = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A layer of the model: the network's name in a diffusers folder, and the path in its tree."""

    network: str
    path: str
    layer: Layer

    @property
    def name(self) -> str:
        """The whole path, for messages."""
        return f"{self.network}.{self.path}"


def find_places(network: str, module: nn.Module) -> list[Place]:
    """Return the layers of a network to which LoRA can add something."""
    found = sorted(module.named_modules(), key=lambda item: item[0])
    return [
        Place(network=network, path=path, layer=layer)
        for path, layer in found
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]


def name_unet(places: Iterable[Place]) -> dict[str, Place]:
    """Return the UNet's layers by every name that a file may give them."""
    places = list(places)
    original = _originals([place.path for place in places])
    return {name: place for place in places for name in _unet_names(place.path, original)}


def _originals(paths: Sequence[str]) -> dict[str, str]:
    """Return the original layout's name of each module in diffusers, by the latter."""
    blocks = _numbers(r"down_blocks\.(\d+)\.resnets\.(\d+)\.", paths)
    attended = {block for block, _ in _numbers(r"down_blocks\.(\d+)\.attentions\.(\d+)\.", paths)}
    count = 1 + max((block for block, _ in blocks), default=-1)
    layout = UNetLayout(
        layers=tuple(sum(block == b for b, _ in blocks) for block in range(count)),
        attended=tuple(block in attended for block in range(count)),
    )
    return {new: old for old, new in unet_places(layout).items()}


def _numbers(pattern: str, paths: Sequence[str]) -> set[tuple[int, int]]:
    compiled = re.compile(pattern)
    matches = (compiled.match(path) for path in paths)
    return {(int(match[1]), int(match[2])) for match in matches if match is not None}


def _unet_names(path: str, original: Mapping[str, str]) -> Iterator[str]:
    yield f"lora_unet_{_flat(path)}"
    for variant in (path, *_old_unet(path)):
        for start in ("", "unet.", "base_model.model.", "unet.base_model.model."):
            yield start + variant
    old = rename(path, original)
    if old is not None:
        yield f"lora_unet_{_flat(old)}"
        yield f"diffusion_model.{old}"
        yield f"model.diffusion_model.{old}"


def _old_unet(path: str) -> Iterator[str]:
    """Yield the names of when attention processors held LoRA's matrices."""
    block, found, layer = path.rpartition(".attn1." if ".attn1." in path else ".attn2.")
    if found:
        for name in {layer, layer.removesuffix(".0")}:
            yield f"{block}{found}processor.{name}"
            yield f"{block}{found}{name}"


def name_encoder(places: Iterable[Place], index: int, count: int) -> dict[str, Place]:
    """Return the layers of text encoder ``index`` of ``count`` by every name of theirs."""
    return {name: place for place in places for name in _encoder_names(place.path, index, count)}


def _encoder_names(path: str, index: int, count: int) -> Iterator[str]:
    kohya = ("te", "te1") if count == 1 else (f"te{index + 1}",)
    network = "text_encoder" if index == 0 else f"text_encoder_{index + 1}"
    flat = _flat(path)
    for start in kohya:
        yield f"lora_{start}_text_model_{flat}"
        yield f"lora_{start}_{flat}"
    head, _, last = path.rpartition(".")
    for variant in (path, f"{head}.{_OLD_TEXT.get(last, last)}"):
        for inner in ("", "text_model.", "base_model.model.", "base_model.model.text_model."):
            yield f"{network}.{inner}{variant}"


def _flat(path: str) -> str:
    return path.replace(".", "_")
