"""Reading LoRA files: which pairs of matrices they hold, and how much each counts.

The rule this module protects: a file is understood whole. A tensor of another method (LoHa, LoKr,
DoRA, …) is refused by name, since leaving it out would give another picture without a word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from daemon.errors import ModelError
from workers.diffusion.tensor_files import TensorFile, open_tensors

# How each program ends the names of a pair: down, up and the number alpha. The rest is the layer.
_ENDS = re.compile(
    r"""(?P<layer>.+?)
    (?: \.lora_(?P<kohya>down|up)\.weight
      | [._]lora\.(?P<diffusers>down|up)\.weight
      | \.lora_linear_layer\.(?P<linear>down|up)\.weight
      | \.lora_(?P<peft>A|B)(\.default)?\.weight
      | (\.lora|_lora|\.lora_linear_layer)?\.(?P<alpha>alpha)
    )""",
    re.VERBOSE,
)
_ROLES = {"A": "down", "B": "up"}

_OTHER_METHODS = {
    r"\.dora_scale$|lora_magnitude_vector": "DoRA",
    r"\.hada_w\d": "LoHa",
    r"\.lokr_w\d": "LoKr",
    r"\.lora_mid\.weight$": "LoCon with Tucker decomposition",
    r"\.oft_|\.boft": "OFT",
    r"\.(a|b)[12]\.weight$": "GLoRA",
    r"\.lora_(B|up)\.bias$": "LoRA with biases",
    r"\.diff(_b)?$|\.w_norm$|\.b_norm$": "full differences of weights",
}
_METADATA = "lora_adapter_metadata"  # diffusers' LORA_ADAPTER_METADATA_KEY
_REMEDY = "use a plain LoRA file, of kohya's or PEFT's form"


@dataclass(kw_only=True)
class Pair:
    """The matrices for one layer as the file has them, and its alpha, if the file has one."""

    down: str | None = None
    up: str | None = None
    alpha: float | None = None


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """An opened LoRA file: its pairs by the layers' names, and the names of all other tensors."""

    tensors: TensorFile
    pairs: Mapping[str, Pair]
    others: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call the file."""
        return self.tensors.name

    def matrices(self, layer: str) -> tuple[mx.array, mx.array]:
        """Return the first and the second matrix of a layer, not yet read.

        Raises:
            ModelError: one of them is missing, or their ranks differ.
        """
        pair = self.pairs[layer]
        if pair.down is None or pair.up is None:
            missing = "first" if pair.down is None else "second"
            raise ModelError(
                f"{self.name} is incomplete: it lacks the {missing} matrix for {layer}",
                remedy="download or copy the file again",
            )
        down, up = self.tensors.floats(pair.down), self.tensors.floats(pair.up)
        if min(down.ndim, up.ndim) < 2 or down.shape[0] != up.shape[1] or not down.size:
            raise ModelError(
                f"{self.name}: the matrices for {layer} do not belong together; "
                f"their shapes are {tuple(down.shape)} and {tuple(up.shape)}",
                remedy=_REMEDY,
            )
        return down, up

    def weight(self, layer: str, path: str, rank: int) -> float:
        """Return by what the product of a layer's matrices is multiplied.

        That is alpha / rank; alpha is the rank where the file does not say it. ``path`` is the
        layer's in diffusers, under which PEFT's settings speak of it.
        """
        alpha = self.pairs[layer].alpha
        if alpha is None:
            alpha = _peft_alpha(self.settings, path, rank)
        network = path.partition(".")[0]
        root = bool(self.settings.get(f"{network}.use_rslora"))
        return alpha / (math.sqrt(rank) if root else rank)


def read_lora(path: Path, name: str) -> LoraFile:
    """Open a LoRA file that messages call ``name``.

    Raises:
        ModelError: it is damaged, no LoRA, or of a method that is not supported.
    """
    file = open_tensors(path, name)
    _refuse_other_methods(file)
    pairs: dict[str, Pair] = {}
    others = [tensor for tensor in file.shapes if not _take(file, tensor, pairs)]
    if not any(pair.down or pair.up for pair in pairs.values()):
        raise ModelError(f"{name} holds no LoRA matrices", remedy=_REMEDY)
    return LoraFile(tensors=file, pairs=pairs, others=tuple(others), settings=_settings(file))


def _refuse_other_methods(file: TensorFile) -> None:
    for pattern, method in _OTHER_METHODS.items():
        found = next((name for name in file.shapes if re.search(pattern, name)), None)
        if found is not None:
            raise ModelError(
                f"{file.name} is not plain LoRA but {method}, which is not supported: "
                f"it has the tensor {found}",
                remedy=_REMEDY,
            )


def _take(file: TensorFile, tensor: str, pairs: dict[str, Pair]) -> bool:
    """Enter a tensor in ``pairs``; say whether its name ends as one of a pair does."""
    match = _ENDS.fullmatch(tensor)
    if match is None:
        return False
    pair = pairs.setdefault(match["layer"], Pair())
    role = next(filter(None, match.group("kohya", "diffusers", "linear", "peft", "alpha")))
    if role == "alpha":
        pair.alpha = _number(file, tensor)
    elif _ROLES.get(role, role) == "down":
        pair.down = tensor
    else:
        pair.up = tensor
    return True


def _number(file: TensorFile, tensor: str) -> float:
    array: Any = file.arrays[tensor]
    value = float(array.astype(mx.float32).item()) if array.size == 1 else math.nan
    if not math.isfinite(value):
        raise ModelError(f"{file.name}: {tensor} is not a finite number", remedy=_REMEDY)
    return value


def _settings(file: TensorFile) -> Mapping[str, Any]:
    """Return PEFT's settings that diffusers writes into the metadata; empty if there are none."""
    try:
        settings = json.loads(file.metadata.get(_METADATA, "{}"))
    except (ValueError, RecursionError):
        raise ModelError(f"{file.name} has unreadable {_METADATA}", remedy=_REMEDY) from None
    return settings if isinstance(settings, dict) else {}


def _peft_alpha(settings: Mapping[str, Any], path: str, rank: int) -> float:
    """Return alpha by PEFT's ``LoraConfig``: a pattern that ends the layer's path comes first."""
    network, _, layer = path.partition(".")
    patterns = settings.get(f"{network}.alpha_pattern")
    for pattern, alpha in patterns.items() if isinstance(patterns, dict) else ():
        if f".{layer}".endswith(f".{pattern}") and isinstance(alpha, int | float):
            return float(alpha)
    alpha = settings.get(f"{network}.lora_alpha")
    return float(alpha) if isinstance(alpha, int | float) else float(rank)
