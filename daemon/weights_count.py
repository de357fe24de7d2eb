"""How many parameters a model has, at how many bits each, told from the headers of its weights.

The rule this module protects: a parameter is counted once, however it is stored: packed words of a
quantised weight count as what they hold, its scales do not count, nor does what a second file
repeats or a tied output layer shares with the embeddings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from daemon.errors import ModelError
from daemon.gguf_header import QUANTISED, loaded_bytes
from daemon.safetensors_header import DAMAGED, TensorInfo, WeightsHeader

# What a packed weight is called, and what stands beside it: MLX, GPTQ and AWQ, compressed-tensors.
_COMPANIONS = {
    "weight": ("scales", "biases"),
    "qweight": ("scales", "qzeros", "g_idx"),
    "weight_packed": ("weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"),
}
_FLOAT8_SCALES = ("weight_scale_inv", "input_scale")
_OUTPUT = "lm_head"

# Positions and masks, which are stored with some networks and never trained.
_COUNTERS = frozenset({"I32", "I64", "U64", "BOOL"})

# Rotary frequencies, which some files carry along: they follow from the configuration.
_FREQUENCIES = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|rope\.freqs|rope_freqs\.weight)")
_WORD = 32
_MOST_SETTING = 2**16


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """What a configuration says of packed weights; ``layers``: of those that differ, by name."""

    bits: int = 4
    group_size: int = 64
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def bits_of(self, layer: str, words: int, scales: int | None) -> float:
        """Return the bits of a layer that has these many words and scales in a row."""
        own = self.layers.get(layer, {})
        if scales and words:
            return words * _WORD / (scales * _size(own.get("group_size"), self.group_size))
        return float(_size(own.get("bits"), self.bits))


@dataclass(frozen=True, kw_only=True)
class WeightsCount:
    """``bits``: the mean of the matrices' parameters; ``mixed``: they are not all alike.

    ``stored_bytes``: the memory that the weights take if they are kept as they are.
    """

    parameters: int
    bits: float
    mixed: bool
    stored_bytes: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A tensor, or a file's piece of one, with packed words counted as what they hold."""

    parameters: int
    bits: float
    is_matrix: bool


def quantization_of(config: Mapping[str, Any]) -> Quantization:
    """Return what a ``config.json`` says of packed weights, MLX's defaults where it is silent."""
    found = config.get("quantization") or config.get("quantization_config")
    settings = found if isinstance(found, dict) else {}
    layers = {name: value for name, value in settings.items() if isinstance(value, dict)}
    return Quantization(
        bits=_size(settings.get("bits"), Quantization.bits),
        group_size=_size(settings.get("group_size"), Quantization.group_size),
        layers=layers,
    )


def count_weights(
    headers: Sequence[WeightsHeader],
    quantization: Quantization | None = None,
    *,
    tied: bool = False,
    split: bool = False,
) -> WeightsCount:
    """Count what the files with these headers hold together.

    ``tied``: the configuration says that the output layer is the embeddings. ``split``: the files
    have a piece of each matrix, and whole copies of what has one axis, as Meta's releases do.

    Raises:
        ModelError: a header contradicts itself.
    """
    tensors = list(_once(headers, tied=tied, split=split))
    parts = [
        part
        for group in _by_layer(tensors).values()
        for part in _parts(group, quantization or Quantization())
    ]
    bits = _bits(parts)
    total = sum(bits.values())
    return WeightsCount(
        parameters=sum(part.parameters for part in parts),
        bits=sum(width * count for width, count in bits.items()) / total if total else 0.0,
        mixed=len(bits) > 1,
        stored_bytes=sum(_stored_bytes(tensor) for tensor in tensors),
    )


def _size(value: object, default: int) -> int:
    return value if isinstance(value, int) and 0 < value <= _MOST_SETTING else default


def _once(headers: Sequence[WeightsHeader], *, tied: bool, split: bool) -> Iterator[TensorInfo]:
    """Yield the tensors without repetitions."""
    vectors: set[str] = set()
    for header in headers:
        storages: set[tuple[int, tuple[int, ...]]] = set()
        for tensor in header.tensors:
            _check_size(tensor)
            repeated = tensor.name in vectors or (tensor.offset, tensor.shape) in storages
            if repeated or _FREQUENCIES.fullmatch(tensor.name):
                continue
            if tied and tensor.name.startswith(f"{_OUTPUT}."):
                continue
            if split and len(tensor.shape) < 2:
                vectors.add(tensor.name)
            if tensor.bytes:
                storages.add((tensor.offset, tensor.shape))
            yield tensor


def _check_size(tensor: TensorInfo) -> None:
    """Refuse a shape of more elements than its bytes have bits."""
    if not 0 <= tensor.elements <= 8 * tensor.bytes:
        raise ModelError(
            f"the weights {tensor.name[:80]!r} are declared with {len(tensor.shape)} axes and "
            f"{tensor.bytes} bytes, which do not go together",
            remedy=DAMAGED,
        )


def _by_layer(tensors: Iterable[TensorInfo]) -> dict[str, list[tuple[str, TensorInfo]]]:
    """Return each layer's tensors with the last parts of their names."""
    found: dict[str, list[tuple[str, TensorInfo]]] = {}
    for tensor in tensors:
        layer, _, leaf = tensor.name.rpartition(".")
        found.setdefault(layer, []).append((leaf, tensor))
    return found


def _parts(group: Sequence[tuple[str, TensorInfo]], quantization: Quantization) -> Iterator[_Part]:
    by_leaf = dict(group)
    packed = next((leaf for leaf in _COMPANIONS if _is_packed(leaf, by_leaf)), None)
    beside = (*_FLOAT8_SCALES, *(_COMPANIONS[packed] if packed else ()))
    for leaf, tensor in group:
        if leaf == packed:
            yield _unpacked(tensor, by_leaf.get(_COMPANIONS[leaf][0]), quantization)
        elif leaf not in beside and tensor.dtype not in _COUNTERS:
            yield _Part(
                parameters=tensor.elements,
                bits=nominal_bits(tensor.dtype),
                is_matrix=len(tensor.shape) > 1,
            )


def _is_packed(leaf: str, by_leaf: Mapping[str, TensorInfo]) -> bool:
    return leaf in by_leaf and _COMPANIONS[leaf][0] in by_leaf


def _unpacked(words: TensorInfo, scales: TensorInfo | None, quantization: Quantization) -> _Part:
    layer, _, leaf = words.name.rpartition(".")
    per_row = scales.shape[-1] if scales is not None and leaf == "weight" else None
    bits = quantization.bits_of(layer, words.shape[-1] if words.shape else 1, per_row)
    return _Part(parameters=round(words.elements * _WORD / bits), bits=bits, is_matrix=True)


@cache
def nominal_bits(dtype: str) -> float:
    """Return the bits in a type's name: 16 of BF16, 4 of Q4_K, 8 of F8_E4M3; 8 of BOOL."""
    digits = re.search(r"\d{1,3}", dtype)
    return float(digits[0]) if digits else 8.0


def _bits(parts: Sequence[_Part]) -> Counter[float]:
    """Return the parameters at each number of bits, of the matrices if there are any."""
    matrices = [part for part in parts if part.is_matrix] or parts
    found: Counter[float] = Counter()
    for part in matrices:
        found[part.bits] += part.parameters
    return found


def _stored_bytes(tensor: TensorInfo) -> int:
    """Return the bytes in memory; of GGUF's types those after the reading."""
    return loaded_bytes(tensor) if tensor.dtype in QUANTISED else tensor.bytes
