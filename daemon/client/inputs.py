"""Local files on their way into a spec: which ones an option means, and what hash names them.

The rule it protects: a path never travels. What travels is a file's name, for messages, and the
hash of its content; a file is read in blocks and never held in memory.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

from daemon.errors import UsageError

_BLOCK = 1 << 20

TRAINING_FILES = ("train", "valid", "test")
_CHECK_PATH = "check the path; a relative one begins at the folder of this command"

_LORA = (
    "write --lora FILE, or --lora FILE:SCALE with a number as SCALE, such as style.safetensors:0.8"
)

# mlx-lm's name of an adapter's weights, PEFT's, and that of MLX's first examples, which wrote no
# configuration beside it.
_ADAPTER_OLD = "adapters.npz"
_ADAPTER_WEIGHTS = ("adapters.safetensors", "adapter_model.safetensors", _ADAPTER_OLD)
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_FOLDER = (
    f"a folder with {' or '.join(_ADAPTER_WEIGHTS[:2])}, and {_ADAPTER_CONFIG}, or {_ADAPTER_OLD}"
)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def readable_file(path: Path, remedy: str = _CHECK_PATH) -> Path:
    """Return ``path``; ``remedy`` says what to do about a file that is missing.

    Raises:
        UsageError: it is missing, no regular file, or unreadable.
    """
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", remedy=remedy) from None
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a folder; a file is needed here", remedy="name a file in it"
        ) from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", remedy="its owner can allow it: chmod a+r"
        ) from None
    if not path.is_file():
        raise UsageError(
            f"{path} is not a regular file", remedy="copy its content into one, and name that"
        )
    return path


def training_files(path: Path) -> dict[str, Path]:
    """Return the files of training data by their place in the spec.

    A folder gives ``train.jsonl`` and, where they are, ``valid.jsonl`` and ``test.jsonl``; a file
    gives ``rows``, of which the job keeps a tenth for validation.

    Raises:
        UsageError: there is no such file or folder, or the folder has no ``train.jsonl``.
    """
    if not path.is_dir():
        return {"rows": readable_file(path)}
    found = {place: path / f"{place}.jsonl" for place in TRAINING_FILES}
    found = {place: file for place, file in found.items() if file.exists()}
    if "train" not in found:
        raise UsageError(
            f"{path} holds no train.jsonl",
            field="data",
            remedy="name the file train.jsonl, or give one FILE.jsonl, which is split by seed",
        )
    return {place: readable_file(file) for place, file in found.items()}


def lora_file(text: str) -> tuple[Path, float | None]:
    """Split ``FILE[:SCALE]`` into the file and its scale, None where none is given.

    A file of the whole name counts as such, whatever colons it has.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    name, colon, end = text.rpartition(":")
    scale = _number(end) if colon else None
    if scale is None or Path(text).exists():
        return readable_file(Path(text), _LORA), None
    return readable_file(Path(name), _LORA), scale


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def adapter_files(folder: Path) -> dict[str, Path]:
    """Return an adapter's weights and configuration by their place in the spec.

    ``folder`` may be an ``.npz`` file itself. Where a folder has weights of several forms, mlx-lm's
    are taken before PEFT's, and these before NumPy's.

    Raises:
        UsageError: one of the two is missing.
    """
    if folder.suffix == ".npz" and folder.is_file():
        return {"weights": readable_file(folder)}
    if not folder.is_dir():
        raise UsageError(
            f"there is no adapter folder {folder}",
            field="adapter",
            remedy=f"give job:N, job:N@STEP, or {_ADAPTER_FOLDER}",
        )
    needed = f"an adapter is {_ADAPTER_FOLDER}; studioq fetch N makes one"
    there = [name for name in _ADAPTER_WEIGHTS if (folder / name).exists()]
    weights = there[0] if there else _ADAPTER_WEIGHTS[0]
    found = {"weights": readable_file(folder / weights, needed)}
    if weights != _ADAPTER_OLD or (folder / _ADAPTER_CONFIG).exists():
        found["config"] = readable_file(folder / _ADAPTER_CONFIG, needed)
    return found
