"""Which files make a language model, what they weigh, and how they are told apart.

The rule this module protects: everything that can be known before loading is known before loading,
so a wrong folder costs a message and not the memory of the machine. Imports no MLX.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from daemon.errors import ModelError
from daemon.layer_count import check_layer_count
from daemon.regular_files import check_regular
from daemon.release_files import find_npz, find_shards, is_consolidated
from daemon.release_names import follows_from_settings, split_axis
from workers.language import zip_records
from workers.language.headers import (
    TensorInfo,
    WeightsHeader,
    loaded_bytes,
    read_gguf_header,
    read_safetensors_header,
)
from workers.language.npz_archive import open_npz
from workers.language.originals.archive import open_archive

# Bytes of each tensor that enter the fingerprint, taken from its middle.
_SAMPLE = 256
_CONFIG, _PARAMS = "config.json", "params.json"


class Format(StrEnum):
    """How a model lies on disk."""

    FOLDER = "folder"
    GGUF = "gguf"
    ORIGINAL = "original"
    NPZ = "npz"


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model's files: ``path`` is the folder, or the GGUF file; ``weights`` are sorted by name."""

    path: Path
    format: Format
    weights: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What messages call the model."""
        return self.path.name


def find_model_files(path: Path) -> ModelFiles:
    """Say what kind of model lies at ``path``.

    A folder may hold one model twice. Hugging Face's files come first: they have what others lack,
    the chat template and the tokens that end an answer. An ``npz`` beside a release was made from
    it for MLX. ``daemon.models.model_format`` decides alike.

    Raises:
        ModelError: nothing is there, or nothing that can be read, or something that is no regular
            file; says what was found.
    """
    if path.is_file() and path.suffix == ".gguf":
        return ModelFiles(path=path, format=Format.GGUF, weights=(path,))
    if not path.is_dir():
        raise ModelError(
            f"there is no model at {path}", remedy="see studioq models list for what is there"
        )
    check_regular(path, path.name)
    return _folder_files(path)


def check_layers(files: ModelFiles, config: Mapping[str, Any]) -> None:
    """Refuse a configuration with more layers than the weights have, before they are built.

    Raises:
        ModelError: names both numbers.
    """
    headers = read_headers(files).values()
    names = {tensor.name for header in headers for tensor in header.tensors}
    check_layer_count(files.name, _CONFIG, config, names)


def _folder_files(folder: Path) -> ModelFiles:
    has_config = (folder / _CONFIG).is_file()
    if has_config and any(folder.glob("model*.safetensors")):
        return ModelFiles(path=folder, format=Format.FOLDER, weights=_shards(folder))
    if npz := find_npz(folder):
        return ModelFiles(path=folder, format=Format.NPZ, weights=npz)
    if (folder / _PARAMS).is_file() or any(is_consolidated(file.name) for file in folder.iterdir()):
        return ModelFiles(path=folder, format=Format.ORIGINAL, weights=find_shards(folder))
    if has_config and not any(folder.glob("*.gguf")):
        return ModelFiles(path=folder, format=Format.FOLDER, weights=_shards(folder))
    return _only_gguf(folder)


def settings_file(files: ModelFiles) -> Path:
    """Return the file with the network's sizes, of a model that is a folder.

    ``weights.npz`` came with either; where both are there, MLX's example wrote ``config.json`` from
    ``params.json``, and ``quantization`` into it.

    Raises:
        ModelError: there is none.
    """
    known = {Format.FOLDER: (_CONFIG,), Format.ORIGINAL: (_PARAMS,)}
    names = known.get(files.format, (_CONFIG, _PARAMS))
    for name in names:
        if (files.path / name).is_file():
            return files.path / name
    wanted = " or ".join(names)
    raise ModelError(
        f"{files.name} has {files.weights[0].name}, and no {wanted} with the network's sizes",
        remedy=f"put the {wanted} beside it that was published with the weights",
    )


def _only_gguf(folder: Path) -> ModelFiles:
    """Return the one GGUF file of a folder without config.json."""
    found = sorted(folder.glob("*.gguf"))
    if len(found) == 1:
        return ModelFiles(path=found[0], format=Format.GGUF, weights=(found[0],))
    if found:
        names = ", ".join(file.name for file in found)
        raise ModelError(
            f"{folder.name} holds {len(found)} GGUF files ({names}), so which is meant is unclear",
            remedy="keep one GGUF file per model folder",
        )
    raise ModelError(
        f"{folder.name} is not a model folder: it has neither config.json nor a GGUF file",
        remedy="a model is a Hugging Face or MLX folder, a release with params.json, a folder with "
        "weights.npz, or one with one GGUF file",
    )


def _shards(folder: Path) -> tuple[Path, ...]:
    """Return the weights of a Hugging Face folder, all of those that its index names."""
    shards = tuple(sorted(folder.glob("model*.safetensors")))
    if not shards:
        raise ModelError(
            f"{folder.name} has no weights: there is no model*.safetensors in it",
            remedy="download the safetensors files of the model, or convert it first",
        )
    missing = sorted(_indexed(folder) - {shard.name for shard in shards})
    if missing:
        raise ModelError(
            f"{folder.name} is incomplete: {missing[0]} is missing"
            + (f", and {len(missing) - 1} more files" if len(missing) > 1 else ""),
            remedy="download the model again",
        )
    return shards


def _indexed(folder: Path) -> set[str]:
    """Return the file names in the index of a sharded model; none without an index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    try:
        return {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder.name}/{index.name} cannot be read: {error}", remedy="download the model again"
        ) from None


def read_headers(files: ModelFiles) -> dict[str, WeightsHeader]:
    """Read and check the header of every weights file, by file name.

    The tensors of a zip archive (``.pth``, ``.npz``) have the bytes that they take in memory.
    """
    return {file.name: _READERS[file.suffix](file) for file in files.weights}


def _torch_header(path: Path) -> WeightsHeader:
    return WeightsHeader(tensors=tuple(open_archive(path).infos.values()), data_start=0)


def _npz_header(path: Path) -> WeightsHeader:
    return WeightsHeader(tensors=tuple(open_npz(path).infos.values()), data_start=0)


_READERS: dict[str, Callable[[Path], WeightsHeader]] = {
    ".gguf": read_gguf_header,
    ".safetensors": read_safetensors_header,
    ".pth": _torch_header,
    ".npz": _npz_header,
}
_ZIPS = (".pth", ".npz")


def fingerprint(files: ModelFiles) -> str:
    """Return a SHA-256 that identifies the weights without reading all of them.

    Hashed: for a folder its config.json or params.json; then for each weights file, by name, its
    size, its header, and 256 bytes from the middle of every tensor; of a zip archive the directory
    with its checksums stands for the header. Two fine-tunings of one model have equal headers, so
    the samples are what tells them apart; a file changed between the samples goes unnoticed.
    """
    configs = [] if files.format is Format.GGUF else [settings_file(files)]
    headers = read_headers(files)
    return identify(configs, ((file, headers[file.name]) for file in files.weights))


def identify(configs: Iterable[Path], weights: Iterable[tuple[Path, WeightsHeader]]) -> str:
    """Return the SHA-256 of configurations, and of headers and samples of weights files."""
    digest = hashlib.sha256()
    for config in configs:
        digest.update(config.read_bytes())
    for file, header in weights:
        known = zip_records.identity(file) if file.suffix in _ZIPS else _identity(file, header)
        for piece in known:
            digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()


def _identity(file: Path, header: WeightsHeader) -> Iterator[bytes]:
    """Yield the bytes of a weights file that enter the fingerprint."""
    yield str(file.stat().st_size).encode()
    with file.open("rb") as opened:
        yield opened.read(header.data_start)
        for tensor in header.tensors:
            middle = tensor.offset + max(0, tensor.bytes - _SAMPLE) // 2
            yield os.pread(opened.fileno(), min(_SAMPLE, tensor.bytes), middle)


def estimate_bytes(files: ModelFiles, *, float32: bool) -> int:
    """Return the memory the loaded weights will take, bytes.

    ``float32``: as on the CPU, where every weight is expanded to four bytes an element.
    """
    headers = read_headers(files)
    tensors = [tensor for header in headers.values() for tensor in header.tensors]
    if files.format in (Format.ORIGINAL, Format.NPZ):
        tensors = list(_loaded_once(tensors))
    if files.format is Format.GGUF:
        return sum(4 * each.elements if float32 else loaded_bytes(each) for each in tensors)
    if not float32:
        return sum(tensor.bytes for tensor in tensors)
    return _expanded(tensors, _bits(files.path))


def _loaded_once(tensors: Iterable[TensorInfo]) -> Iterator[TensorInfo]:
    """Yield what is loaded of a release's files; once what each of them has all of."""
    seen: set[str] = set()
    for tensor in tensors:
        repeated = split_axis(tensor.name) is None and tensor.name in seen
        if not repeated and not follows_from_settings(tensor.name):
            yield tensor
        seen.add(tensor.name)


def _expanded(tensors: list[TensorInfo], bits: int) -> int:
    """Return the bytes of safetensors in float32; packed words hold ``32 / bits`` elements."""
    names = {tensor.name for tensor in tensors}
    total = 0
    for tensor in tensors:
        prefix, _, leaf = tensor.name.rpartition(".")
        if leaf in {"scales", "biases"} and f"{prefix}.weight" in names:
            continue
        packed = leaf == "weight" and f"{prefix}.scales" in names
        total += 4 * (tensor.elements * 32 // bits if packed else tensor.elements)
    return total


def _bits(folder: Path) -> int:
    """Return the bits per weight that a folder's config declares, 4 where it says nothing."""
    try:
        config = json.loads((folder / _CONFIG).read_bytes())
        return max(1, int(config["quantization"]["bits"]))
    except (ValueError, KeyError, TypeError, OSError):
        return 4
