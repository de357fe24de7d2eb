"""Which files are the weights of a publisher's release, or of a model in ``.npz`` archives.

The rule this module protects: the files are taken in the order in which their tensors are joined,
and a number that is missing among them is named. Imports no MLX.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from daemon.errors import ModelError

_AGAIN = "download the missing file"
_SINGLE, _SINGLE_NPZ = "consolidated.safetensors", "weights.npz"
_PTH = re.compile(r"consolidated\.(\d+)\.pth")
_NPZ = re.compile(r"weights\.(\d+)\.npz")
_PART = re.compile(r"consolidated-(\d+)-of-(\d+)\.safetensors")


def is_consolidated(name: str) -> bool:
    """Return whether a file is called as the weights of a release are."""
    return name == _SINGLE or bool(_PTH.fullmatch(name) or _PART.fullmatch(name))


def is_npz(name: str) -> bool:
    """Return whether a file is called as weights that MLX's examples of 2023 wrote."""
    return name == _SINGLE_NPZ or _NPZ.fullmatch(name) is not None


def find_shards(folder: Path, *, name: str | None = None) -> tuple[Path, ...]:
    """Return the weights files of a release, in the order in which their tensors are joined.

    Safetensors are taken where both kinds are there. ``name`` is what messages call the model.

    Raises:
        ModelError: there are none, or one of their numbers is missing.
    """
    name = name or folder.name
    single = folder / _SINGLE
    if single.is_file():
        return (single,)
    found = _parts(folder, name) or _numbered(folder, name, _PTH, "consolidated.{:02}.pth")
    if not found:
        raise ModelError(
            f"{name} has no weights: neither consolidated.00.pth nor {_SINGLE} is in it",
            remedy="download the weights beside params.json",
        )
    return found


def find_npz(folder: Path, *, name: str | None = None) -> tuple[Path, ...]:
    """Return ``weights.npz``, or ``weights.00.npz`` and so on; nothing if there are none.

    Raises:
        ModelError: one of their numbers is missing, or both kinds are there.
    """
    name = name or folder.name
    single, parts = folder / _SINGLE_NPZ, _matching(folder, _NPZ)
    if not single.is_file():
        return _numbered(folder, name, _NPZ, "weights.{:02}.npz")
    if parts:
        raise ModelError(
            f"{name} has both {_SINGLE_NPZ} and {parts[0].name}, so which is meant is unclear",
            remedy="keep one of them, with those that belong to it",
        )
    return (single,)


def _parts(folder: Path, name: str) -> tuple[Path, ...]:
    """Return ``consolidated-I-of-N.safetensors``, which Mistral's large models come in."""
    named = {path: _PART.fullmatch(path.name) for path in _matching(folder, _PART)}
    for total in {match[2] for match in named.values() if match}:
        numbers = (f"{number:0{len(total)}}" for number in range(1, int(total) + 1))
        _check(name, named, (f"consolidated-{at}-of-{total}.safetensors" for at in numbers))
    return tuple(named)


def _numbered(folder: Path, name: str, pattern: re.Pattern[str], called: str) -> tuple[Path, ...]:
    """Return the files of a pattern, which are numbered from 0."""
    found = _matching(folder, pattern)
    _check(name, found, (called.format(number) for number in range(len(found))))
    return found


def _matching(folder: Path, pattern: re.Pattern[str]) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name)))


def _check(name: str, found: Iterable[Path], expected: Iterable[str]) -> None:
    names = {path.name for path in found}
    for file in expected:
        if file not in names:
            raise ModelError(f"{name} is incomplete: {file} is missing", remedy=_AGAIN)
