"""Numbers made from names: weights, noise and inputs that two programs can make alike.

The rule this module protects: no weight is ever committed. ``tests/references`` (PyTorch) and the
tests (MLX) both draw a parameter from its name and shape; only what comes out is kept. No framework
is imported here, so that the script's environment and the tests' can both use it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Array = npt.NDArray[np.float32]
Shape = Iterable[int]


def normal(name: str, shape: Shape) -> Array:
    """Return standard normal numbers, float32, of a PCG64 stream that ``name`` seeds."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.standard_normal(tuple(shape)).astype(np.float32)


def picture(name: str, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a picture of smooth waves, (height, width, 3), 0 to 255, that ``name`` seeds."""
    phases = normal(name, (3, 3)).astype(np.float64)
    y, x = np.mgrid[0:height, 0:width] / 16.0
    waves = [np.sin(x * a + y * b + c) for a, b, c in phases]
    return np.rint(127.5 + 127.5 * np.stack(waves, axis=-1)).astype(np.uint8)


def mask(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a mask (height, width), 255 in a part that whole latents cover."""
    drawn = np.zeros((height, width), dtype=np.uint8)
    drawn[8 : height // 16 * 8 + 16, 16 : width - 8] = 255
    return drawn


def weight(network: str, name: str, shape: Shape) -> Array:
    """Return the parameter ``name`` of ``network``: norms near 1, the rest of unit gain."""
    shape = tuple(shape)
    numbers = normal(f"{network}/{name}", shape)
    if name.endswith(".bias"):
        return numbers * np.float32(0.1)
    if len(shape) == 1:
        return np.float32(1.0) + numbers * np.float32(0.1)
    if "embedding.weight" in name:
        return numbers * np.float32(0.5)
    return numbers * np.float32(1.0 / math.sqrt(math.prod(shape[1:])))


def weights(network: str, shapes: Mapping[str, Any]) -> dict[str, Array]:
    """Return all parameters of ``network``, whose names and PyTorch shapes are given."""
    return {name: weight(network, name, shape) for name, shape in shapes.items()}


def write_folder(folder: Path, described: Path, shapes: Mapping[str, Any]) -> Path:
    """Write a model's folder: a copy of ``described`` with the weights that it lacks.

    Its ``weights.json`` says for each weight file which network's parameters it holds, which of
    them under another name, and under which names ``position_ids`` lie beside them. ``shapes``: the
    parameters of every network.
    """
    shutil.copytree(described, folder, dirs_exist_ok=True)
    for place, file in json.loads((folder / "weights.json").read_bytes()).items():
        arrays: dict[str, Any] = weights(file["network"], shapes[file["network"]])
        for name, old in file["renamed"].items():
            arrays[old] = arrays.pop(name)
        for name in file["position_ids"]:
            arrays[name] = np.arange(77, dtype=np.int64)[None]
        save_file(arrays, folder / place)
    (folder / "weights.json").unlink()
    return folder
