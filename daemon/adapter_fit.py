"""Whether an uploaded adapter can be one of the model that it is given for, as headers tell it.

The rule this module protects: an adapter is refused only if it certainly does not fit. What the
headers do not tell, such as layers that the network renames or merges, is left to the engine, which
compares every tensor. Imports no MLX.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.adapter_config import CONFIG
from daemon.adapter_files import NEEDED, WEIGHTS, Adapter, read_adapter
from daemon.errors import ModelError, SpecRefusedError
from daemon.language_files import LanguageFiles
from daemon.models import LANGUAGE_FORMATS, model_format
from daemon.release_names import mlx_name
from daemon.safetensors_header import TensorInfo
from daemon.weights_count import Quantization

Files = Mapping[str, tuple[str, Path]]

_FLOATS = frozenset({"F16", "BF16", "F32"})
_PICKLES = (b"PK\x03\x04", b"\x80")
_IN_BLOCK = re.compile(r"(?P<stack>.*\blayers)\.(?P<block>\d{1,9})\.(?P<layer>.+)")

# Which axis of an adapter's matrices is which side of the layer.
_SIDES = {"lora_a": ("inputs", 0), "lora_b": ("outputs", 1)}

# llama.cpp's names of a block's layers that are one matrix in mlx-lm's networks, too.
_GGUF_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_GGUF_LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A linear layer's size."""

    outputs: int
    inputs: int


def check_uploaded_adapter(files: Files, field: str, name: str, path: Path | None) -> None:
    """Check the files at the places ``FIELD.weights`` and ``FIELD.config`` of a spec.

    ``name`` is the model's, and ``path`` where it is; None: it is not here yet.

    Raises:
        SpecRefusedError: names the field and the first thing that is wrong.
    """
    if f"{field}.weights" not in files:
        return
    try:
        adapter = _read(files, field)
        if path is not None and model_format(path) in LANGUAGE_FORMATS:
            check_fit(adapter, name, matrices_of(name, path))
    except ModelError as error:
        raise SpecRefusedError(
            f"{field}: {error.message}", field=field, remedy=error.remedy
        ) from None


def _read(files: Files, field: str) -> Adapter:
    name, weights = files[f"{field}.weights"]
    _, config = files.get(f"{field}.config", (CONFIG, None))
    try:
        return read_adapter(weights, config, name=name)
    except ModelError:
        if name.endswith(".npz") or not _is_pickle(weights):
            raise
    raise ModelError(
        f"{name} was written by PyTorch as a pickle, which may run code and is never read",
        remedy=f"save it as {WEIGHTS}; {NEEDED}",
    )


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith(_PICKLES)


def matrices_of(name: str, path: Path) -> dict[str, Matrix]:
    """Return the linear layers in the blocks of a model, by mlx-lm's paths, as its headers tell.

    Nothing of a release in several files, each of which has a piece of every matrix.

    Raises:
        ModelError: the files are damaged.
    """
    found = model_format(path)
    headers, quantization = LanguageFiles(name=name, path=path, format=found).weights()
    if found == "original" and len(headers) > 1:
        return {}
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    return dict(_matrices(tensors, quantization, packed=found == "gguf"))


def _matrices(
    tensors: Mapping[str, TensorInfo], quantization: Quantization, *, packed: bool
) -> Iterator[tuple[str, Matrix]]:
    for tensor in tensors.values():
        layer, _, leaf = _known_name(tensor.name).rpartition(".")
        if leaf != "weight" or len(tensor.shape) != 2 or not _IN_BLOCK.fullmatch(layer):
            continue
        outputs, inputs = tensor.shape
        if tensor.dtype in _FLOATS or packed:
            yield layer, Matrix(outputs=outputs, inputs=inputs)
            continue
        scales = tensors.get(f"{tensor.name.rpartition('.')[0]}.scales")
        if tensor.dtype == "U32" and scales is not None and len(scales.shape) == 2:
            bits = quantization.bits_of(layer, inputs, scales.shape[1])
            yield layer, Matrix(outputs=outputs, inputs=round(inputs * 32 / bits))


def _known_name(name: str) -> str:
    """Return mlx-lm's name of a tensor, whichever format it is from."""
    match = _GGUF_NAME.fullmatch(name)
    if match is None:
        return mlx_name(name)
    layer = _GGUF_LAYERS.get(match[2])
    return f"model.layers.{match[1]}.{layer}.weight" if layer else name


def check_fit(adapter: Adapter, name: str, matrices: Mapping[str, Matrix]) -> None:
    """Refuse an adapter that is of another model than the one with these layers.

    Raises:
        ModelError: names the first tensor that does not fit, and what the model has.
    """
    if adapter.config.kind == "full":
        return
    last = _last_blocks(matrices)
    for tensor, shape in adapter.shapes.items():
        layer, _, leaf = tensor.rpartition(".")
        if layer not in matrices:
            _check_block(name, tensor, layer, last)
        elif leaf in _SIDES:
            _check_matrix(name, tensor, shape, matrices[layer])


def _check_matrix(name: str, tensor: str, shape: tuple[int, ...], matrix: Matrix) -> None:
    """Compare the outer axis of ``lora_a``, (inputs, rank), or ``lora_b``, (rank, outputs)."""
    side, axis = _SIDES[tensor.rpartition(".")[2]]
    needed = getattr(matrix, side)
    if len(shape) != 2 or shape[axis] != needed:
        raise _misfit(
            f"{tensor} has the shape {'x'.join(map(str, shape))}, and that layer of {name} has "
            f"{needed} {side}"
        )


def _check_block(name: str, tensor: str, layer: str, last: Mapping[str, int]) -> None:
    match = _IN_BLOCK.fullmatch(layer)
    if match is not None and int(match["block"]) > last.get(match["stack"], sys.maxsize):
        raise _misfit(
            f"{tensor} is in layer {match['block']}; the last one of {name} is "
            f"{last[match['stack']]}"
        )


def _last_blocks(layers: Iterable[str]) -> dict[str, int]:
    """Return the number of the last block of each stack of them."""
    last: dict[str, int] = {}
    for layer in layers:
        if match := _IN_BLOCK.fullmatch(layer):
            last[match["stack"]] = max(last.get(match["stack"], 0), int(match["block"]))
    return last


def _misfit(reason: str) -> ModelError:
    return ModelError(
        f"the adapter does not fit the model: {reason}",
        remedy="use the model that the adapter was trained with",
    )
