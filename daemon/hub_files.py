"""Which files of a repository on the model hub a model needs.

The rule this module protects: nothing comes twice, and no pickle comes at all. Repositories hold
the same weights in several formats and precisions; one of each is taken.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch

from daemon.errors import ModelError
from daemon.image_models import INDEX

# A file's name in its repository, and its bytes.
HubFile = tuple[str, int]

# Weights without pickle, configuration, tokenizer.
_PATTERNS = ("*.json", "*.safetensors", "*.gguf", "*.model", "*.txt", "*.jinja", "*.tiktoken")

# The parts of a diffusers repository that pictures are made with, and those that hold weights.
_PART = re.compile(r"(scheduler|tokenizer(_\d)?|text_encoder(_\d)?|unet|transformer|vae)/[^/]+")
_NETWORK = re.compile(r"text_encoder(_\d)?|unet|transformer|vae")
_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")

# Names of weights as diffusers and transformers write them: the variant stands before the shard's
# number, in older versions behind it.
_STEM = r"(?:diffusion_pytorch_model|model)"
_WEIGHTS = re.compile(
    rf"{_STEM}(?:\.(?P<variant>\w+))?(?P<shard>-\d{{5}}-of-\d{{5}})?(?:\.(?P<old>\w+))?\.safetensors"
)
_SHARDS = re.compile(
    rf"{_STEM}(?:\.(?P<variant>\w+))?\.safetensors\.index(?:\.(?P<old>\w+))?\.json"
)
_PREFERRED = ("", "fp16", "bf16", "fp32", "non_ema")

# The weights of each variant of a part.
_Variants = Mapping[str, Sequence[HubFile]]


def wanted_files(name: str, files: Iterable[HubFile]) -> list[HubFile]:
    """Return those of a repository's files that are to be fetched.

    Raises:
        ModelError: there are no weights that can be read, or the name does not say which.
    """
    found = list(files)
    if any(file == INDEX for file, _ in found):
        return _pipeline_files(name, found)
    usable = [item for item in found if _matches(item[0], _PATTERNS)]
    return _one_kind_of_weights(name, usable)


def _matches(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _one_kind_of_weights(name: str, files: Sequence[HubFile]) -> list[HubFile]:
    """Leave GGUF out where there is safetensors; refuse a choice that a name cannot make."""
    names = [file for file, _ in files]
    if any(file.endswith(".safetensors") for file in names):
        _refuse_several(name, _checkpoints(names))
        # Mistral's repositories hold the weights twice, the second time in a layout of their own.
        twice = _any_of(names, "model*.safetensors")
        unwanted = ["*.gguf", *(["consolidated*.safetensors"] if twice else [])]
        return [item for item in files if not _matches(item[0], unwanted)]
    several = [file for file in names if file.endswith(".gguf")]
    if not several:
        raise ModelError(
            f"{name} has neither safetensors nor GGUF weights",
            remedy="other formats are not read; the hub often has a copy in one of these",
        )
    _refuse_several(name, several)
    return list(files)


def _any_of(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatch(file, pattern) for file in names)


def _checkpoints(names: Sequence[str]) -> list[str]:
    """Return the files that are each a model of its own, where no configuration says otherwise."""
    if _any_of(names, "config.json") or _any_of(names, "params.json"):
        return []
    return [file for file in names if fnmatch(file, "*.safetensors") and "-of-" not in file]


def _refuse_several(name: str, files: Sequence[str]) -> None:
    if len(files) > 1:
        raise ModelError(
            f"{name} has {len(files)} models in it, and its name does not say which: "
            f"{', '.join(files[:5])}",
            remedy="put the one that you want into a folder under the model root",
        )


def _pipeline_files(name: str, files: Sequence[HubFile]) -> list[HubFile]:
    """Return the index, the settings of every part, and one variant of each network's weights."""
    parts: dict[str, list[HubFile]] = defaultdict(list)
    for item in files:
        if _PART.fullmatch(item[0]):
            parts[item[0].partition("/")[0]].append(item)
    networks = {
        part: _variants(name, part, inside)
        for part, inside in parts.items()
        if _NETWORK.fullmatch(part)
    }
    if not networks:
        raise ModelError(f"{name} has a {INDEX}, but none of the networks of an image model")
    chosen = [item for item in files if item[0] == INDEX]
    for inside in parts.values():
        chosen += [item for item in inside if _is_setting(item[0].partition("/")[2])]
    half = all("fp16" in variants for variants in networks.values())
    for variants in networks.values():
        chosen += variants["fp16" if half else _best(variants)]
    return chosen


def _is_setting(file: str) -> bool:
    return _matches(file, _SETTINGS) and ".index" not in file


def _variants(name: str, part: str, files: Sequence[HubFile]) -> _Variants:
    """Return a network's weights by variant; whole ones where there are shards of the same too.

    Raises:
        ModelError: it has none in safetensors.
    """
    whole: dict[str, list[HubFile]] = defaultdict(list)
    shards: dict[str, list[HubFile]] = defaultdict(list)
    for item in files:
        file = item[0].partition("/")[2]
        weights, index = _WEIGHTS.fullmatch(file), _SHARDS.fullmatch(file)
        match = weights or index
        if match is not None:
            variant = match["variant"] or match["old"] or ""
            single = weights is not None and not weights["shard"]
            (whole if single else shards)[variant].append(item)
    if not (whole or shards):
        raise ModelError(
            f"{name} has no safetensors weights of its {part}",
            remedy="other formats are not read; the hub often has a copy in this one",
        )
    return shards | whole


def _best(variants: _Variants) -> str:
    """Return the variant to take where not every network has fp16."""
    return next((known for known in _PREFERRED if known in variants), min(variants))
