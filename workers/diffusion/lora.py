"""Putting LoRA files beside the layers of a borrowed model.

The rule this module protects: a file that changes nothing is an error, and what of it was not used
is reported. A picture that silently lacks its LoRA is worse than none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlx import nn

from daemon.wording import counted
from workers.diffusion.lora_files import read_lora
from workers.diffusion.lora_fit import fit, listed, unmatched
from workers.diffusion.lora_layers import Delta, with_deltas
from workers.diffusion.lora_names import Place, find_places, name_encoder, name_unet


class Networks(Protocol):
    """The parts of a ``DiffusionModel`` into which LoRA is put."""

    @property
    def unet(self) -> nn.Module:
        """The UNet, not yet fused."""

    @property
    def text_encoders(self) -> Sequence[nn.Module]:
        """The text encoders."""


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """What became of one file: how many layers it changes, and its names that match none."""

    name: str
    scale: float
    layers: int
    unmatched: tuple[str, ...]

    @property
    def line(self) -> str:
        """Return one line for the job's log."""
        text = f"LoRA {self.name}, scale {self.scale:g}: {counted(self.layers, 'layer')}"
        return text + (f"; not used: {listed(self.unmatched)}" if self.unmatched else "")


def apply_loras(model: Networks, files: Sequence[tuple[Path, str, float]]) -> list[LoraReport]:
    """Put LoRA files into a model whose module trees are the caller's own, before it is fused.

    Layers are exchanged for wrappers that are called alike. Several files on one layer add up; to
    be called once with all of them.

    Args:
        model: the networks.
        files: for each file its path, what messages call it, and its scale.

    Raises:
        ModelError: a file is damaged, of another method, for another model, changes nothing, or
            has a matrix that does not fit its layer or is not finite; names file and layer.
    """
    trees = {"unet": model.unet} | {
        f"text_encoder{f'_{index + 1}' if index else ''}": encoder
        for index, encoder in enumerate(model.text_encoders)
    }
    names = _names(trees) if files else {}
    deltas: dict[str, list[Delta]] = {}
    places: dict[str, Place] = {}
    reports = []
    for path, name, scale in files:
        file = read_lora(path, name)
        fits = fit(file, names, scale)
        for item in fits:
            places[item.place.name] = item.place
            deltas.setdefault(item.place.name, []).append(item.delta)
        left = unmatched(file, names)
        reports.append(LoraReport(name=name, scale=scale, layers=len(fits), unmatched=left))
    for key, place in places.items():
        _exchange(trees[place.network], place.path, with_deltas(place.layer, deltas[key]))
    return reports


def _names(trees: dict[str, nn.Module]) -> dict[str, Place]:
    """Return every layer of the model by all its names."""
    unet, *encoders = (find_places(network, tree) for network, tree in trees.items())
    if any(place.path.endswith("to_qkv") for place in unet):
        raise ValueError("LoRA goes into a UNet before its projections are fused")
    names = name_unet(unet)
    for index, places in enumerate(encoders):
        names |= name_encoder(places, index, len(encoders))
    return names


def _exchange(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at ``path`` in the tree."""
    *parents, last = path.split(".")
    node: Any = root
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    node[int(last) if isinstance(node, list) else last] = module
