"""Model names and the folders they stand for, under the configured model roots.

The rule this module protects: a name never leads out of its root, whatever it says and wherever
links point. A root may be a plain folder of models or an existing Hugging Face cache. Imports no
MLX: what the files hold is read by ``daemon.model_facts``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import ModelError
from daemon.image_models import INDEX, has_networks, is_checkpoint, is_pipeline
from daemon.regular_files import read_regular
from daemon.release_files import is_consolidated, is_npz

DEMO_MODEL = "smollm2"

# Models that come with this program, such as shapes: a root that is only read, behind all others.
SHIPPED_MODELS = Path(__file__).with_name("shipped_models")

IMAGE_FORMATS = frozenset({"diffusers", "single-file"})
LANGUAGE_FORMATS = frozenset({"gguf", "hf", "mlx", "npz", "original"})

CONFIG, PARAMS = "config.json", "params.json"

_FILES = (".gguf", ".safetensors")
_WEIGHTS = ("*.safetensors", "*.gguf", "*.npz", "*.pth", "*.bin")
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*(?:/[A-Za-z0-9][\w.+-]*){0,2}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LONGEST_NAME = 200  # bytes; file systems allow 255, and a cache's folder has more than the name
_CACHED = "models--"
_SNAPSHOTS = "snapshots"


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A file of a model: its place in the folder, its size, and when it changed (nanoseconds)."""

    place: str
    bytes: int
    modified: int
    changed: int


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model that is there: its name, where it is, what its files look like, and these.

    ``format`` is a guess by the files: gguf, mlx, hf, original, npz, diffusers (a folder),
    single-file (an image model's checkpoint) or unknown.
    """

    name: str
    path: Path
    format: str
    files: tuple[ModelFile, ...]

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a model lies: its folder or file, and the root that has it."""

    root: Path
    path: Path


def is_bundled(name: str) -> bool:
    """Return whether ``name`` is the demo model, which is fetched on first use."""
    return name == DEMO_MODEL


def is_cached(path: Path) -> bool:
    """Return whether a folder is called as one model's in a Hugging Face cache."""
    return path.name.startswith(_CACHED)


def is_hub_id(name: str) -> bool:
    """Return whether ``name`` could be a model's id on the Hugging Face hub (org/name).

    What ends as a file of weights does is meant as one, and no id.
    """
    return _HUB_ID.fullmatch(name) is not None and ".." not in name and not name.endswith(_FILES)


@dataclass(frozen=True)
class ModelRoots:
    """The folders in which models are looked for, the first one first."""

    roots: Sequence[Path]

    def find(self, name: str) -> Path | None:
        """Return the model's folder or single file, None if no root has it."""
        place = self.locate(name)
        return None if place is None else place.path

    def locate(self, name: str) -> Place | None:
        """Return where the model lies, None if no root has it."""
        if not _is_name(name):
            return None
        for root in self.roots:
            for path in _candidates(root, name):
                if _is_model(path) and _is_inside(path, root):
                    return Place(root=root, path=path)
        return None

    def check_links(self, name: str) -> None:
        """Refuse a model that would be found but for a link that leaves its root.

        Raises:
            ModelError: names the link, its target and the way out.
        """
        if not _is_name(name) or self.find(name) is not None:
            return
        for root in self.roots:
            for path in _candidates(root, name):
                leaving = _leaving(path, root) if _is_model(path) else []
                if leaving:
                    target = leaving[0].resolve()
                    raise ModelError(
                        f"the model {name} is not used: {leaving[0]} is a link that leaves the "
                        f"model root, to {target}",
                        field="model",
                        remedy=f"add the folder that holds it ({target.parent}) to model_roots in "
                        "the daemon's config.toml, or put the files themselves there",
                    )

    def list(self) -> list[ModelEntry]:
        """Return every model by name; where two roots have one, the first root's."""
        found: dict[str, ModelEntry] = {}
        for root in self.roots:
            for name in _names(root):
                path = self.find(name)
                if name not in found and path is not None:
                    found[name] = entry_at(name, path)
        return [found[name] for name in sorted(found)]


def _is_name(name: str) -> bool:
    """Return whether a name can be a model's; what is longer than a file's name can be is none."""
    fits = _NAME.fullmatch(name) is not None and len(name.encode()) <= _LONGEST_NAME
    return fits and ".." not in name


def _candidates(root: Path, name: str) -> Iterator[Path]:
    """Yield where a root may keep the model: a folder, a file, a Hugging Face cache."""
    yield root / name
    for suffix in _FILES:
        yield root / f"{name}{suffix}"
    for hub in (root, root / "hub"):
        snapshot = _snapshot(hub / f"{_CACHED}{name.replace('/', '--')}")
        if snapshot is not None:
            yield snapshot


def _snapshot(cached: Path) -> Path | None:
    """Return the snapshot that ``main`` names, else the newest one."""
    try:
        revision = (cached / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        revision = ""
    if revision and "/" not in revision and (cached / _SNAPSHOTS / revision).is_dir():
        return cached / _SNAPSHOTS / revision
    return max(_children(cached / _SNAPSHOTS), key=_modified, default=None)


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns


def _is_model(path: Path) -> bool:
    if path.is_file():
        return path.suffix in _FILES
    if not path.is_dir():
        return False
    if any(next(path.glob(pattern), None) for pattern in _WEIGHTS) or has_networks(path):
        return True
    # A folder that says to be a model is found, to be told what it lacks; a cache's is not.
    declared = any((path / name).is_file() for name in (INDEX, CONFIG, PARAMS))
    return declared and path.parent.name != _SNAPSHOTS


def _is_inside(path: Path, root: Path) -> bool:
    """Return whether the path and the files in it really lie under the root."""
    return not _leaving(path, root)


def _leaving(path: Path, root: Path) -> list[Path]:
    """Return those of the path and the files in it that really lie elsewhere."""
    real = root.resolve()
    return [item for item in (path, *_links(path)) if not _lies_in(item, real)]


def _lies_in(item: Path, root: Path) -> bool:
    try:
        return item.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link that leads in a circle
        return False


def _links(folder: Path, levels: int = 2) -> Iterator[Path]:
    """Yield the links in a folder and those below; what is no link lies where it seems to."""
    for entry in _scan(folder):
        if entry.is_symlink():
            yield Path(entry.path)
        if levels > 1:
            yield from _links(Path(entry.path), levels - 1)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds; nothing of what is none or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _names(root: Path) -> Iterator[str]:
    """Yield the names that a root may have models for."""
    for child in [*_children(root), *_children(root / "hub")]:
        if is_cached(child):
            yield child.name.removeprefix(_CACHED).replace("--", "/", 1)
        elif child.suffix in _FILES:
            yield child.name.removesuffix(child.suffix)
        elif _is_model(child):
            yield child.name
        else:
            yield from (f"{child.name}/{below.name}" for below in _children(child))


def _children(folder: Path) -> list[Path]:
    """Return what a folder holds, without hidden names; nothing if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def entry_at(name: str, path: Path) -> ModelEntry:
    """Return the model ``name`` whose folder or file is ``path``."""
    found = _files(path) if path.is_dir() else _single_file(path)
    files = tuple(sorted(found, key=lambda file: file.place))
    return ModelEntry(name=name, path=path, format=model_format(path), files=files)


def _files(folder: Path, prefix: str = "") -> Iterator[ModelFile]:
    """Yield a folder's files, and those of the folders below, by their places."""
    for entry in _scan(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), f"{prefix}{entry.name}/")
            continue
        with suppress(OSError):  # a file that has just gone, or a link to nothing
            if entry.is_file():
                yield _model_file(f"{prefix}{entry.name}", entry.stat())


def _single_file(path: Path) -> Iterator[ModelFile]:
    """Yield a model's only file, and the settings beside it."""
    for file in (path, path.with_suffix(".json")):
        with suppress(FileNotFoundError):
            yield _model_file(file.name, file.stat())


def _model_file(place: str, status: os.stat_result) -> ModelFile:
    return ModelFile(
        place=place,
        bytes=status.st_size,
        modified=status.st_mtime_ns,
        changed=status.st_ctime_ns,
    )


def model_format(path: Path) -> str:
    """Return what a model's files look like, as ``ModelEntry.format`` names it.

    A folder that holds a model twice is taken as a Hugging Face folder first, as the engine does.
    """
    if is_pipeline(path):
        return "diffusers"
    if path.is_file():
        known = "gguf" if path.suffix == ".gguf" else None
    else:
        known = _language_format(path)
    return known or ("single-file" if is_checkpoint(path) else "unknown")


def _language_format(folder: Path) -> str | None:
    names = {file.name for file in _children(folder)}
    has_config = CONFIG in names
    if has_config and any(name.startswith("model") and name.endswith(_FILES[1]) for name in names):
        return _configured(folder)
    if any(map(is_npz, names)):
        return "npz"
    if PARAMS in names or any(map(is_consolidated, names)):
        return "original"
    if any(name.endswith(".gguf") for name in names):
        return "gguf"
    return _configured(folder) if has_config else None


def _configured(folder: Path) -> str:
    return "mlx" if _is_quantized(folder / CONFIG) else "hf"


def _is_quantized(config: Path) -> bool:
    """Return whether the configuration has MLX's ``quantization`` key."""
    try:
        settings = json.loads(read_regular(config))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(settings, dict) and "quantization" in settings
