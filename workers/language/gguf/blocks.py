"""The numbers of a GGUF file's tensors, read one tensor at a time.

The rule this module protects: what MLX can hold as it is stays as it is, bit for bit; of everything
else float16 is made, and never more than one chunk of rows is in memory in between.

Blocks of 32 numbers with one scale, and perhaps one bias, are MLX's affine quantisation in another
order (ggml-common.h of llama.cpp: block_q4_0, block_q4_1, block_q5_0, block_q5_1, block_q8_0). The
blocks of 256, whose scales are quantised too, are none of MLX's: llama.cpp's own package computes
their numbers. Float16 and not bfloat16, because the scales they come from are float16, and eight
times the precision costs nothing in a range that weights do not leave.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from daemon.errors import ModelError
from daemon.safetensors_header import DAMAGED
from workers.language.headers import TensorInfo

_CHUNK = 2**20  # bytes of the file at a time: they stay in the processor's cache
_FLOATS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
# Numbers that are stored from zero on: what stands for zero, in units of the scale.
_MIDDLES = {"Q4_0": 8, "Q5_0": 16, "Q8_0": 128}


def read_floats(path: Path, info: TensorInfo) -> mx.array:
    """Read a tensor that is stored unquantised, in its own type."""
    found = np.empty(info.shape, _FLOATS[info.dtype])
    flat = found.reshape(-1).view(np.uint8)
    for start in range(0, info.bytes, _CHUNK):
        count = min(_CHUNK, info.bytes - start)
        flat[start : start + count] = _bytes(path, info, start, count)
    array = mx.array(found)
    return array.view(mx.bfloat16) if info.dtype == "BF16" else array


def read_float16(path: Path, info: TensorInfo) -> mx.array:
    """Read a quantised tensor as float16.

    Raises:
        ModelError: a number is beyond float16, which no weight is: the file is damaged.
    """
    from gguf import GGMLQuantizationType, quants  # takes half a second, and few files need it

    kind = GGMLQuantizationType[info.dtype]

    def halves(rows: np.ndarray) -> np.ndarray:
        numbers: np.ndarray = quants.dequantize(rows, kind)
        return numbers.astype(np.float16)

    try:
        with np.errstate(over="raise", invalid="raise"):
            return _collected(path, info, np.dtype(np.float16), info.shape[-1], halves)
    except FloatingPointError:
        raise ModelError(
            f"tensor {info.name} of {path.name} has numbers beyond float16, as no weights have",
            remedy=DAMAGED,
        ) from None


def read_words(path: Path, info: TensorInfo) -> mx.array:
    """Read the packed numbers of an affine tensor: (…, columns · bits / 32), uint32."""
    unpack = _WORDS[info.dtype]
    bits = {"4": 4, "5": 5, "8": 8}[info.dtype[1]]

    def words(rows: np.ndarray) -> np.ndarray:
        return unpack(_blocks(info, rows)).reshape(len(rows), -1).view("<u4")

    return _collected(path, info, np.dtype("<u4"), info.shape[-1] * bits // 32, words)


def read_scales(path: Path, info: TensorInfo) -> mx.array:
    """Read the scales of an affine tensor: (…, columns / 32), float16."""
    return _halves(path, info, 0)


def read_biases(path: Path, info: TensorInfo) -> mx.array:
    """Read or compute the biases of an affine tensor: (…, columns / 32), float16."""
    middle = _MIDDLES.get(info.dtype)
    if middle is None:
        return _halves(path, info, 2)
    return read_scales(path, info) * mx.array(-middle, mx.float16)


def _halves(path: Path, info: TensorInfo, place: int) -> mx.array:
    """Read the float16 number at ``place`` in every block."""

    def found(rows: np.ndarray) -> np.ndarray:
        return _blocks(info, rows)[..., place : place + 2].view("<f2")[..., 0]

    return _collected(path, info, np.dtype("<f2"), info.shape[-1] // 32, found)


def _blocks(info: TensorInfo, rows: np.ndarray) -> np.ndarray:
    """Return rows of bytes as (rows, blocks, bytes of a block)."""
    return rows.reshape(len(rows), info.shape[-1] // 32, -1)


def _nibbles(quarters: np.ndarray) -> np.ndarray:
    """Put 4-bit numbers from llama.cpp's order into MLX's: (…, 16), bytes.

    llama.cpp's byte k holds the numbers k and k + 16, MLX's the numbers 2k and 2k + 1.
    """
    even, odd = quarters[..., 0::2], quarters[..., 1::2]
    return np.concatenate([(even & 0x0F) | (odd << 4), (even >> 4) | (odd & 0xF0)], axis=-1)


def _fives(blocks: np.ndarray, place: int) -> np.ndarray:
    """Put 5-bit numbers, their fifth bits at ``place``, into MLX's order: (…, 20), bytes.

    MLX writes their bits one number after another, the lowest first.
    """
    nibbles = blocks[..., place + 4 :]
    numbers = np.concatenate([nibbles & 0x0F, nibbles >> 4], axis=-1)
    fifths = np.unpackbits(blocks[..., place : place + 4], axis=-1, bitorder="little")
    bits = np.unpackbits(numbers[..., None], axis=-1, count=4, bitorder="little")
    every = np.concatenate([bits, fifths[..., None]], axis=-1)
    return np.packbits(every.reshape(*every.shape[:-2], -1), axis=-1, bitorder="little")


_WORDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Q4_0": lambda blocks: _nibbles(blocks[..., 2:]),
    "Q4_1": lambda blocks: _nibbles(blocks[..., 4:]),
    "Q5_0": lambda blocks: _fives(blocks, 2),
    "Q5_1": lambda blocks: _fives(blocks, 4),
    "Q8_0": lambda blocks: blocks[..., 2:] ^ 0x80,
}


def _collected(
    path: Path,
    info: TensorInfo,
    dtype: np.dtype[Any],
    columns: int,
    change: Callable[[np.ndarray], np.ndarray],
) -> mx.array:
    """Return what ``change`` makes of the rows of bytes: (…, columns), ``dtype``."""
    found = np.empty((*info.shape[:-1], columns), dtype)
    rows = found.reshape(-1, columns)
    for start, chunk in _row_chunks(path, info, len(rows)):
        rows[start : start + len(chunk)] = change(chunk)
    return mx.array(found)


def _row_chunks(path: Path, info: TensorInfo, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows of bytes, (rows, bytes of a row), each chunk with the number of its first."""
    width = info.bytes // max(1, rows)
    step = max(1, _CHUNK // max(1, width))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        yield start, _bytes(path, info, start * width, count * width).reshape(count, width)


def _bytes(path: Path, info: TensorInfo, start: int, count: int) -> np.ndarray:
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), count, info.offset + start)
    if len(data) < count:
        raise ModelError(
            f"{path.name} has been changed while it was read: tensor {info.name} is cut off",
            remedy=DAMAGED,
        )
    return np.frombuffer(data, np.uint8)
